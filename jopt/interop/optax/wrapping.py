"""Wrappers and measurements, with optax's arguments and states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

import jopt
from jopt import tree
from jopt.core.fused import fused_update
from jopt.interop.optax.base import (
    EmptyState,
    GradientTransformationExtraArgs,
    Pair,
    as_pair,
    own,
    own_without_extra,
    with_fields,
    without_state,
)
from jopt.interop.optax.processing import ema
from jopt.values import arguments
from jopt.wrappers import guards


# Some steps only.


class ConditionFn(Protocol):
    """``should_transform_fn(step, **extra_args) -> bool``."""

    def __call__(self, step: Any, **extra_args: Any) -> Any: ...


class ConditionallyTransformState(NamedTuple):
    """State of `conditionally_transform`."""

    inner_state: Any
    step: Any


class ConditionallyMaskState(NamedTuple):
    """State of `conditionally_mask`."""

    step: Any
    inner_state: Any


def conditionally_transform(
    inner: Any,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> Pair:
    """Transform in some steps only, see `jopt.conditionally_transform`."""
    inner = as_pair(inner, "conditionally_transform: inner")
    tx = jopt.conditionally_transform(inner, should_transform_fn, forward_extra_args)
    return with_fields(tx, ConditionallyTransformState)


def conditionally_mask(
    inner: Any,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> Pair:
    """Transform in some steps, zeros in others; see `jopt.conditionally_mask`."""
    inner = as_pair(inner, "conditionally_mask: inner")
    tx = jopt.conditionally_mask(inner, should_transform_fn, forward_extra_args)
    return with_fields(tx, ConditionallyMaskState)


class ApplyIfFiniteState(NamedTuple):
    """State of `apply_if_finite`."""

    notfinite_count: Any
    last_finite: Any
    total_notfinite: Any
    inner_state: Any


def apply_if_finite(inner: Any, max_consecutive_errors: int) -> Pair:
    """Skip steps that are not finite, up to a number of them in a row.

    Args:
      inner: A transformation.
      max_consecutive_errors: After so many skipped steps, the next one is applied; with
        `jopt.apply_if_finite` it never is.

    Returns:
      A transformation.
    """
    inner = as_pair(inner, "apply_if_finite: inner")

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        inner_state = inner.init(params)
        return ApplyIfFiniteState(zero, jnp.ones((), bool), jnp.copy(zero), inner_state)

    def update(updates, state, params=None, **extra_args):
        finite = guards.all_finite(updates)
        in_a_row, total = guards.bad_steps(
            finite, state.notfinite_count, state.total_notfinite
        )
        applied = finite | (in_a_row > max_consecutive_errors)
        new, inner_state = fused_update(
            inner, updates, state.inner_state, params, extra_args, take=applied
        )
        return new, state._replace(
            notfinite_count=in_a_row,
            last_finite=finite,
            total_notfinite=total,
            inner_state=inner_state,
        )

    return own(init, update)


# Several gradients for a step.


class ShouldSkipUpdateFunction(Protocol):
    """``should_skip_update_fn(updates, gradient_step, params) -> (bool, state)``."""

    def __call__(
        self, updates: Any, gradient_step: Any, params: Any
    ) -> tuple[Any, Any]: ...


def skip_not_finite(updates: Any, gradient_step: Any, params: Any) -> tuple[Any, Any]:
    """Skip a gradient that is not finite; for `MultiSteps`.

    Args:
      updates: The gradient.
      gradient_step: The number of steps so far; not used.
      params: The parameters; not used.

    Returns:
      Whether to skip it, and a dict of what was counted.
    """
    del gradient_step, params
    counts = [jnp.sum(~jnp.isfinite(g)) for g in jax.tree.leaves(updates)]
    number = jnp.sum(jnp.array(counts))
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Any, gradient_step: Any, params: Any, max_squared_norm: float
) -> tuple[Any, Any]:
    """Skip a gradient with a large norm; for `MultiSteps`.

    Args:
      updates: The gradient.
      gradient_step: The number of steps so far; not used.
      params: The parameters; not used.
      max_squared_norm: The squared norm from which on to skip.

    Returns:
      Whether to skip it, and a dict of what was measured.
    """
    del gradient_step, params
    squared = tree.norm(updates) ** 2
    skip = jnp.logical_not(squared < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": squared}


class MultiStepsState(NamedTuple):
    """State of `MultiSteps`."""

    mini_step: Any
    gradient_step: Any
    inner_opt_state: Any
    acc_grads: Any
    skip_state: Any = ()


class MultiSteps:
    """Accumulate gradients over several calls, see `jopt.accumulate`.

    Args:
      opt: The transformation to call with accumulated gradients.
      every_k_schedule: How many gradients make a step: a number, or a function of the
        number of steps so far.
      use_grad_mean: Whether ``opt`` receives their mean; if False, their sum.
      should_skip_update_fn: Which gradients to skip; see `ShouldSkipUpdateFunction`.
      accumulator_dtype: The dtype of the accumulated gradients.

    >>> from jopt.interop import optax
    >>> tx = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2)
    >>> state = tx.init(jnp.ones(1))
    >>> for g in (1.0, 3.0):
    ...     updates, state = tx.update(jnp.full(1, g), state)
    ...     print(updates, tx.has_updated(state))
    [0.] False
    [-2.] True
    """

    def __init__(
        self,
        opt: Any,
        every_k_schedule: int | Callable[[Any], Any],
        use_grad_mean: bool = True,
        should_skip_update_fn: Any = None,
        accumulator_dtype: Any = jnp.float32,
    ):
        self._opt: Any = as_pair(opt, "MultiSteps: opt")
        self._mean, self._skip = use_grad_mean, should_skip_update_fn

        def skip(updates, gradient_step, params):
            return should_skip_update_fn(updates, gradient_step, params)[0]

        self._tx = jopt.accumulate(
            self._opt,
            every_k_schedule,
            use_grad_mean,
            should_skip_update_fn=should_skip_update_fn and skip,
            accumulator_dtype=accumulator_dtype,
        )

    @property
    def inner_opt(self) -> Any:
        """The transformation inside."""
        return self._opt

    def init(self, params: Any) -> MultiStepsState:
        """Return the first state."""
        state = self._tx.init(params)
        return MultiStepsState(
            state.mini_step,
            state.gradient_step,
            state.inner_opt_state,
            state.acc_grads,
            self._skip_state(tree.zeros_like(params), state.gradient_step, params),
        )

    def update(
        self, updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        """Add a gradient; return the updates of a step, or zeros, and the new state."""
        skip_state = self._skip_state(updates, state.gradient_step, params)
        ours = self._tx.init(updates)._replace(
            mini_step=state.mini_step,
            gradient_step=state.gradient_step,
            inner_opt_state=state.inner_opt_state,
            acc_grads=self._scaled(state.acc_grads, state.mini_step),
            total_weight=jnp.asarray(state.mini_step, jnp.float32),
        )
        new, ours = self._tx.update(updates, ours, params, **extra_args)
        return new, state._replace(
            mini_step=ours.mini_step,
            gradient_step=ours.gradient_step,
            inner_opt_state=ours.inner_opt_state,
            acc_grads=self._scaled(
                ours.acc_grads, 1 / jnp.maximum(ours.mini_step, 1).astype(jnp.float32)
            ),
            skip_state=skip_state,
        )

    def _scaled(self, acc_grads: Any, factor: Any) -> Any:
        """Sums from means, or back: jopt keeps a sum where optax keeps a mean."""
        if not self._mean:
            return acc_grads
        return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, acc_grads)

    def _skip_state(self, updates: Any, gradient_step: Any, params: Any) -> Any:
        if self._skip is None:
            return ()
        skip, state = self._skip(updates, gradient_step, params)
        if (jnp.shape(skip), jnp.result_type(skip)) != ((), jnp.bool_):
            raise ValueError(
                "should_skip_update_fn must return one bool and a state, got "
                f"{arguments.abbreviated(skip)}"
            )
        return state

    def has_updated(self, state: Any) -> Any:
        """Return whether the last gradient completed a step."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformationExtraArgs:
        """Return the pair of functions."""
        return GradientTransformationExtraArgs(self.init, self.update)


# Two sets of parameters.


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    fast_state: Any
    steps_since_sync: Any


class LookaheadParams(NamedTuple):
    """The parameters of `lookahead`."""

    fast: Any
    slow: Any

    @classmethod
    def init_synced(cls, params: Any) -> LookaheadParams:
        """Return both sets with the same values."""
        return cls(fast=params, slow=params)


def lookahead(
    fast_optimizer: Any,
    sync_period: int,
    slow_step_size: float,
    reset_state: bool = False,
) -> Pair:
    """Let slow parameters follow the fast ones, see `jopt.lookahead`.

    Args:
      fast_optimizer: The optimizer of the fast parameters.
      sync_period: The number of steps after which slow and fast meet.
      slow_step_size: The way that the slow ones go, as a share.
      reset_state: Whether the fast optimizer starts anew then.

    Returns:
      A transformation of `LookaheadParams`, whose gradients are those of the fast ones.

    Raises:
      ValueError: ``sync_period`` is less than 1.
    """
    inner = as_pair(fast_optimizer, "lookahead: fast_optimizer")
    arguments.at_least(1, sync_period=sync_period)

    def init(params):
        fast = getattr(params, "fast", params)
        return LookaheadState(inner.init(fast), jnp.zeros((), jnp.int32))

    def update(updates, state, params, **extra_args):
        updates, fast_state = inner.update(
            updates, state.fast_state, params.fast, **extra_args
        )
        sync = state.steps_since_sync == sync_period - 1

        def slow_step(u, fast, slow):
            return jnp.where(sync, slow_step_size * (fast + u - slow), 0).astype(
                u.dtype
            )

        def fast_step(u, fast, slow, slow_u):
            return jnp.where(sync, slow + slow_u - fast, u).astype(u.dtype)

        slow = jax.tree.map(slow_step, updates, params.fast, params.slow)
        fast = jax.tree.map(fast_step, updates, params.fast, params.slow, slow)
        if reset_state:
            fresh = inner.init(params.fast)
            fast_state = jax.tree.map(
                lambda x, y: jnp.where(sync, y, x), fast_state, fresh
            )
        steps = (state.steps_since_sync + 1) % sync_period
        return LookaheadParams(fast, slow), LookaheadState(fast_state, steps)

    return own(init, update)


# Measurements.


class SnapshotState(NamedTuple):
    """State of `snapshot`."""

    measurement: dict[str, Any]


def snapshot(measure_name: str, measure: Callable[[Any], Any]) -> Pair:
    """Keep a function of the updates in the state.

    Args:
      measure_name: The name of the measurement in the state.
      measure: The function; it is applied to the parameters first.

    Returns:
      A transformation that leaves the updates as they are.

    >>> from jopt.interop import optax
    >>> tx = optax.snapshot("norm", optax.tree.norm)
    >>> tx.update(jnp.ones(4), tx.init(jnp.zeros(4)))[1].measurement
    {'norm': Array(2., dtype=float32)}
    """

    def init(params):
        return SnapshotState({measure_name: measure(params)})

    def update(updates, state, params=None):
        del params
        return updates, state._replace(measurement={measure_name: measure(updates)})

    return own_without_extra(init, update)


class MonitorState(NamedTuple):
    """State of `monitor`."""

    measurements: dict[str, Any]
    measure_states: tuple[Any, ...]


def monitor(measures: Mapping[str, Any]) -> Pair:
    """Keep several measurements of the updates in the state.

    Args:
      measures: By name, functions of the updates, or transformations such as
        `measure_with_ema` whose updates are the measurement.

    Returns:
      A transformation that leaves the updates as they are.
    """

    def measurement(measure, name):
        if callable(measure):
            return without_state(jopt.stateless(lambda updates, _: measure(updates)))
        return as_pair(measure, f"monitor: {name!r}")

    pairs = {name: measurement(x, name) for name, x in measures.items()}

    def init(params):
        return MonitorState({}, tuple(tx.init(params) for tx in pairs.values()))

    def update(updates, state, params=None, **extra_args):
        results = [
            tx.update(updates, old, params, **extra_args)
            for tx, old in zip(pairs.values(), state.measure_states, strict=True)
        ]
        measured = {name: x for name, (x, _) in zip(pairs, results, strict=True)}
        return updates, MonitorState(measured, tuple(new for _, new in results))

    return own(init, update)


def measure_with_ema(
    measure: Callable[[Any], Any],
    decay: float,
    debias: bool = True,
    accumulator_dtype: Any = None,
) -> Pair:
    """Average a measurement, for `monitor`.

    Args:
      measure: A function of the updates.
      decay, debias, accumulator_dtype: See `ema`.

    Returns:
      A transformation whose updates are the average.
    """
    average = ema(decay, debias, accumulator_dtype)

    def init(params):
        return EmptyState(), average.init(measure(params))

    def update(updates, state, params=None):
        del params
        empty, old = state
        value, new = average.update(measure(updates), old)
        return value, (empty, new)

    return own_without_extra(init, update)
