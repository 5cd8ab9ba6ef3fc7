"""Transformations that rescale, with optax's names, arguments and states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

import jopt
from jopt import tree
from jopt.algorithms.factored_rms import two_axes
from jopt.algorithms.lion import LionMode
from jopt.interop.optax.base import (
    EmptyState,
    MaskOrFn,
    Numeric,
    Pair,
    ScalarOrSchedule,
    lenient,
    own,
    with_fields,
    without_state,
)
from jopt.interop.optax.masking import masked


# Without state.


def identity() -> Pair:
    """Return the updates as they are."""
    return without_state()


def init_empty_state(params: Any) -> EmptyState:
    """Return the state of a transformation without state."""
    del params
    return EmptyState()


ScaleState = ScaleByTrustRatioState = EmptyState


@lenient
def scale(step_size: Numeric) -> Pair:
    """Multiply by a number, see `jopt.scale`."""
    return without_state(jopt.scale(step_size))


@lenient
def scale_by_sign() -> Pair:
    """Take the sign, see `jopt.scale_by_sign`."""
    return without_state(jopt.scale_by_sign())


@lenient
def scale_by_param_block_norm(min_scale: float = 1e-3) -> Pair:
    """Multiply by the norm of the parameter, see `jopt.scale_by_param_block_norm`."""
    return without_state(jopt.scale_by_param_block_norm(min_scale))


@lenient
def scale_by_param_block_rms(min_scale: float = 1e-3) -> Pair:
    """Multiply by the RMS of the parameter, see `jopt.scale_by_param_block_rms`."""
    return without_state(jopt.scale_by_param_block_rms(min_scale))


@lenient
def scale_by_trust_ratio(
    min_norm: Numeric = 0.0, trust_coefficient: Numeric = 1.0, eps: Numeric = 0.0
) -> Pair:
    """Scale to the norm of the parameter, see `jopt.scale_by_trust_ratio`."""
    return without_state(jopt.scale_by_trust_ratio(min_norm, trust_coefficient, eps))


@lenient
def normalize_by_update_norm(scale_factor: Numeric = 1.0, eps: Numeric = 1e-6) -> Pair:
    """Divide by the global norm, see `jopt.normalize_by_update_norm`."""
    return without_state(jopt.normalize_by_update_norm(scale_factor, eps))


@lenient
def centralize() -> Pair:
    """Subtract the mean of each row, see `jopt.centralize`."""
    return without_state(jopt.centralize())


@lenient
def scale_by_polyak(
    f_min: float = 0.0,
    max_learning_rate: float = 1.0,
    eps: float = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> Pair:
    """Take Polyak's step, see `jopt.scale_by_polyak`."""
    return without_state(jopt.scale_by_polyak(f_min, max_learning_rate, eps, variant))


# The learning rate.


class ScaleByScheduleState(NamedTuple):
    """State of `scale_by_schedule`."""

    count: Any


@lenient
def scale_by_schedule(step_size_fn: Callable[[Any], Any]) -> Pair:
    """Multiply by a schedule, see `jopt.scale_by_schedule`."""
    return with_fields(jopt.scale_by_schedule(step_size_fn), ScaleByScheduleState)


@lenient
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> Pair:
    """Multiply by minus the learning rate, see `jopt.scale_by_learning_rate`.

    Args:
      learning_rate: A number, a schedule, or None for `identity`.
      flip_sign: If False, multiply by plus the learning rate.

    Returns:
      A transformation.
    """
    if learning_rate is None:
        return identity()
    if callable(learning_rate):
        tx = jopt.scale_by_learning_rate(learning_rate, flip_sign=flip_sign)
        return with_fields(tx, ScaleByScheduleState)
    return without_state(jopt.scale(-learning_rate if flip_sign else learning_rate))


class WeightDecaySchedule(NamedTuple):
    """State of `add_decayed_weights` with a schedule."""

    count: Any


AddDecayedWeightsState = EmptyState


@lenient
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: MaskOrFn = None
) -> Pair:
    """Add multiples of the parameters, see `jopt.add_decayed_weights`."""
    tx = jopt.add_decayed_weights(weight_decay)
    if callable(weight_decay):
        decay = with_fields(tx, WeightDecaySchedule)
    else:
        decay = without_state(tx)
    return decay if mask is None else masked(decay, mask)


# Adam and its kin.


class ScaleByAdamState(NamedTuple):
    """State of `scale_by_adam` and several others."""

    count: Any
    mu: Any
    nu: Any


@lenient
def scale_by_adam(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> Pair:
    """Rescale by Adam's moments, see `jopt.scale_by_adam`."""
    tx = jopt.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return with_fields(tx, ScaleByAdamState)


class ScaleByAmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`."""

    count: Any
    mu: Any
    nu: Any
    nu_max: Any


@lenient
def scale_by_amsgrad(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Pair:
    """Rescale by AMSGrad's moments, see `jopt.scale_by_amsgrad`."""
    tx = jopt.scale_by_amsgrad(
        b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu
    )
    return with_fields(tx, ScaleByAmsgradState)


@lenient
def scale_by_adamax(
    b1: Numeric = 0.9, b2: Numeric = 0.999, eps: Numeric = 1e-8
) -> Pair:
    """Rescale by Adamax's moments, see `jopt.scale_by_adamax`."""
    return with_fields(jopt.scale_by_adamax(b1, b2, eps), ScaleByAdamState)


class ScaleByLionState(NamedTuple):
    """State of `scale_by_lion`."""

    count: Any
    mu: Any


@lenient
def scale_by_lion(
    b1: Numeric = 0.9,
    b2: Numeric = 0.99,
    mu_dtype: Any = None,
    *,
    mode: LionMode = "hard",
    smooth_beta: float = 1.0,
) -> Pair:
    """Take the sign of a momentum, see `jopt.scale_by_lion`."""
    tx = jopt.scale_by_lion(b1, b2, mu_dtype, mode=mode, smooth_beta=smooth_beta)
    return with_fields(tx, ScaleByLionState)


class ScaleByAdanState(NamedTuple):
    """State of `scale_by_adan`."""

    m: Any
    v: Any
    n: Any
    g: Any
    t: Any


@lenient
def scale_by_adan(
    b1: Numeric = 0.98,
    b2: Numeric = 0.92,
    b3: Numeric = 0.99,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
) -> Pair:
    """Rescale by Adan's moments, see `jopt.scale_by_adan`; differences count less."""
    tx = jopt.scale_by_adan(b1, b2, b3, eps, eps_root, difference_weight=1 - b2)
    return with_fields(
        tx,
        ScaleByAdanState,
        ours={"count": lambda state, _: state.t},
        theirs={"t": lambda state, _: state.count},
    )


class ScaleByBeliefState(NamedTuple):
    """State of `scale_by_belief` and `scale_by_acprop`."""

    count: Any
    mu: Any
    nu: Any


@lenient
def scale_by_belief(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
    *,
    nesterov: bool = False,
) -> Pair:
    """Rescale by AdaBelief's moments, see `jopt.scale_by_belief`."""
    tx = jopt.scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov)
    return with_fields(tx, ScaleByBeliefState)


@lenient
def scale_by_yogi(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-3,
    eps_root: Numeric = 0.0,
    initial_accumulator_value: Numeric = 1e-6,
) -> Pair:
    """Rescale by Yogi's moments, see `jopt.scale_by_yogi`."""
    tx = jopt.scale_by_yogi(b1, b2, eps, eps_root, 0.0)
    # optax starts the first moment with the number of the second too.
    start = _filled(initial_accumulator_value, "mu", "nu")
    return with_fields(tx, ScaleByAdamState, start=start)


def _filled(value: Numeric, *names: str) -> Callable[[Any], Any]:
    """How to start with a number in some slots; it may be traced."""

    def start(state):
        slots = {name: tree.full_like(getattr(state, name), value) for name in names}
        return state._replace(**slots)

    return start


@lenient
def scale_by_radam(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    threshold: Numeric = 5.0,
    *,
    nesterov: bool = False,
) -> Pair:
    """Rescale by RAdam's moments, see `jopt.scale_by_radam`."""
    tx = jopt.scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov)
    return with_fields(tx, ScaleByAdamState)


class ScaleByNovogradState(NamedTuple):
    """State of `scale_by_novograd`."""

    count: Any
    mu: Any
    nu: Any


@lenient
def scale_by_novograd(
    b1: Numeric = 0.9,
    b2: Numeric = 0.25,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    weight_decay: Numeric = 0.0,
    mu_dtype: Any = None,
) -> Pair:
    """Divide by the running norm of each leaf, see `jopt.scale_by_novograd`."""
    tx = jopt.scale_by_novograd(b1, b2, eps, eps_root, weight_decay, mu_dtype)
    return with_fields(
        tx,
        ScaleByNovogradState,
        ours={"nu": lambda state, like: _with_axes(state.nu, like)},
        theirs={"nu": lambda state, _: _scalars(state.nu)},
    )


def _with_axes(scalars: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, g: jnp.reshape(x, (1,) * jnp.ndim(g)), scalars, like)


def _scalars(arrays: Any) -> Any:
    return jax.tree.map(lambda x: jnp.reshape(x, ()), arrays)


# Adaptive rates without Adam.


class ScaleByRmsState(NamedTuple):
    """State of `scale_by_rms`."""

    nu: Any


class ScaleByRmsWithCountState(NamedTuple):
    """State of `scale_by_rms` with bias correction."""

    count: Any
    nu: Any


@lenient
def scale_by_rms(
    decay: Numeric = 0.9,
    eps: Numeric = 1e-8,
    initial_scale: Numeric = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Pair:
    """Divide by the running RMS, see `jopt.scale_by_rms`."""
    tx = jopt.scale_by_rms(decay, eps, 0.0, eps_in_sqrt, bias_correction)
    state = ScaleByRmsWithCountState if bias_correction else ScaleByRmsState
    return with_fields(tx, state, start=_filled(initial_scale, "nu"))


class ScaleByRStdDevState(NamedTuple):
    """State of `scale_by_stddev`."""

    mu: Any
    nu: Any


class ScaleByRStdDevWithCountState(NamedTuple):
    """State of `scale_by_stddev` with bias correction."""

    count: Any
    mu: Any
    nu: Any


@lenient
def scale_by_stddev(
    decay: Numeric = 0.9,
    eps: Numeric = 1e-8,
    initial_scale: Numeric = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Pair:
    """Divide by the running standard deviation, see `jopt.scale_by_stddev`."""
    tx = jopt.scale_by_stddev(decay, eps, 0.0, eps_in_sqrt, bias_correction)
    state = ScaleByRStdDevWithCountState if bias_correction else ScaleByRStdDevState
    return with_fields(tx, state, start=_filled(initial_scale, "nu"))


class ScaleByRssState(NamedTuple):
    """State of `scale_by_rss`."""

    sum_of_squares: Any


@lenient
def scale_by_rss(initial_accumulator_value: Numeric = 0.1, eps: Numeric = 1e-7) -> Pair:
    """Divide by the root of the sum of squares, see `jopt.scale_by_rss`."""
    start = _filled(initial_accumulator_value, "sum_of_squares")
    return with_fields(jopt.scale_by_rss(0.0, eps), ScaleByRssState, start=start)


class ScaleByAdaDeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    e_g: Any
    e_x: Any


@lenient
def scale_by_adadelta(rho: Numeric = 0.9, eps: Numeric = 1e-6) -> Pair:
    """Rescale by Adadelta's rule, see `jopt.scale_by_adadelta`."""
    return with_fields(jopt.scale_by_adadelta(rho, eps), ScaleByAdaDeltaState)


class ScaleByRpropState(NamedTuple):
    """State of `scale_by_rprop`."""

    step_sizes: Any
    prev_updates: Any


@lenient
def scale_by_rprop(
    learning_rate: Numeric,
    eta_minus: Numeric = 0.5,
    eta_plus: Numeric = 1.2,
    min_step_size: Numeric = 1e-6,
    max_step_size: Numeric = 50.0,
) -> Pair:
    """Take steps by sign, each one a step late; see `jopt.scale_by_rprop`."""
    tx = jopt.scale_by_rprop(1.0, eta_minus, eta_plus, min_step_size, max_step_size)
    start = _filled(learning_rate, "step_sizes")
    steps = with_fields(tx, ScaleByRpropState, start=start)

    def update(updates, state, params=None, **extra_args):
        new, after = steps.update(updates, state, params, **extra_args)
        # The step of this gradient comes next time; it is dropped where the sign turns.
        late = jax.tree.map(
            lambda u, g, before: jnp.where(g * before < 0, 0.0, before).astype(u.dtype),
            new,
            updates,
            state.prev_updates,
        )
        return late, after

    return own(steps.init, update)


class ScaleBySM3State(NamedTuple):
    """State of `scale_by_sm3`."""

    mu: Any
    nu: Any


@lenient
def scale_by_sm3(b1: float = 0.9, b2: float = 1.0, eps: float = 1e-8) -> Pair:
    """Divide by the smallest accumulator, see `jopt.scale_by_sm3`."""

    def ours(state, like):
        leaves, treedef = jax.tree.flatten(like)
        rows = treedef.flatten_up_to(state.mu)
        most = max((len(row) for row in rows), default=0)

        def expanded(g, row, axis):
            shape = [n if i == axis else 1 for i, n in enumerate(jnp.shape(g))]
            return jnp.reshape(row[axis], shape) if axis < len(row) else None

        return tuple(
            treedef.unflatten(
                [expanded(g, row, i) for g, row in zip(leaves, rows, strict=True)]
            )
            for i in range(most)
        )

    def theirs(state, like):
        leaves, treedef = jax.tree.flatten(like)
        columns = [treedef.flatten_up_to(column) for column in state.mu]
        rows = [[c[i] for c in columns if c[i] is not None] for i in range(len(leaves))]
        return treedef.unflatten([[x.reshape(-1) for x in row] for row in rows])

    return with_fields(
        jopt.scale_by_sm3(b1, b2, eps),
        ScaleBySM3State,
        ours={"mu": ours},
        theirs={"mu": theirs},
    )


class FactoredState(NamedTuple):
    """State of `scale_by_factored_rms`."""

    count: Any
    v_row: Any
    v_col: Any
    v: Any


@lenient
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Numeric = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Numeric = 1e-30,
    decay_rate_fn: Callable[..., Any] | None = None,
) -> Pair:
    """Divide by a factored RMS, see `jopt.scale_by_factored_rms`."""
    offset: Any = step_offset

    def with_offset(step, rate):
        return 1 - jnp.maximum(step - offset + 1, 1) ** -rate

    # The offset may be traced, where it is a hyperparameter.
    is_array = isinstance(offset, jax.Array)
    tx = jopt.scale_by_factored_rms(
        factored,
        decay_rate,
        0 if is_array else offset,
        min_dim_size_to_factor,
        epsilon,
        with_offset if is_array else decay_rate_fn,
    )

    def axes(g):
        return two_axes(jnp.shape(g), min_dim_size_to_factor, "largest", factored)

    # In place of what a leaf has no use for, jopt keeps None, and optax one zero.
    reduced = {"v_row": 0, "v_col": 1}

    def ours(name):
        def one(g, x):
            if not (pair := axes(g)):
                return x if name == "v" else None
            return None if name == "v" else jnp.expand_dims(x, pair[reduced[name]])

        return lambda state, like: jax.tree.map(one, like, getattr(state, name))

    def theirs(name):
        def one(g, row, col, v):
            kept = {"v_row": row, "v_col": col, "v": v}[name]
            if kept is None:
                return jnp.zeros((1,), (v if row is None else row).dtype)
            if name == "v" or not (pair := axes(g)):
                return kept
            return jnp.squeeze(kept, pair[reduced[name]])

        def field(state, like):
            leaves, treedef = jax.tree.flatten(like)
            columns = [
                treedef.flatten_up_to(x) for x in (state.v_row, state.v_col, state.v)
            ]
            return treedef.unflatten(map(one, leaves, *columns))

        return field

    names = ("v_row", "v_col", "v")
    return with_fields(
        tx,
        FactoredState,
        ours={name: ours(name) for name in names},
        theirs={name: theirs(name) for name in names},
    )


# Gradients of earlier steps.


class ScaleByOptimisticGradientState(NamedTuple):
    """State of `scale_by_optimistic_gradient`."""

    is_initial_step: Any
    previous_gradient: Any


@lenient
def scale_by_optimistic_gradient(alpha: Numeric = 1.0, beta: Numeric = 1.0) -> Pair:
    """Add the change of the gradient, see `jopt.scale_by_optimistic_gradient`."""
    return with_fields(
        jopt.scale_by_optimistic_gradient(alpha, beta),
        ScaleByOptimisticGradientState,
        ours={"count": lambda state, _: jnp.where(state.is_initial_step, 0, 1)},
        theirs={"is_initial_step": lambda state, _: state.count == 0},
    )


class ScaleByDistanceOverGradientsState(NamedTuple):
    """State of `scale_by_distance_over_gradients`."""

    max_dist: Any
    grad_sum_of_squares: Any
    init_params: Any


@lenient
def scale_by_distance_over_gradients(
    reps_rel: float = 1e-6,
    eps: float = 1e-8,
    param_dtype: Any = jnp.float32,
    global_scale: float = 1.0,
) -> Pair:
    """Scale each leaf by DoG's rule, see `jopt.scale_by_distance_over_gradients`."""
    tx = jopt.scale_by_distance_over_gradients(reps_rel, eps, param_dtype, global_scale)

    def with_axes(name):
        return lambda state, like: _with_axes(getattr(state, name), like)

    return with_fields(
        tx,
        ScaleByDistanceOverGradientsState,
        ours={n: with_axes(n) for n in ("max_dist", "grad_sum_of_squares")},
        theirs={
            "max_dist": lambda state, _: _scalars(state.max_dist),
            "grad_sum_of_squares": lambda state, _: jax.tree.map(
                lambda x: jnp.reshape(x, (1,)), state.grad_sum_of_squares
            ),
        },
        wide=True,
    )


class ApplyEvery(NamedTuple):
    """State of `apply_every`."""

    count: Any
    grad_acc: Any


@lenient
def apply_every(k: int = 1) -> Pair:
    """Return the sum of ``k`` updates at every ``k``-th, see `jopt.apply_every`."""
    return with_fields(
        jopt.apply_every(k),
        ApplyEvery,
        theirs={"count": lambda state, _: state.count % k},
    )


# Functions as transformations.


def set_to_zero() -> Pair:
    """Return zeros, see `jopt.set_to_zero`."""
    return without_state(jopt.set_to_zero())


def stateless(f: Callable[[Any, Any], Any]) -> Pair:
    """Apply ``f(updates, params)``, see `jopt.stateless`."""
    return without_state(jopt.stateless(f))


def stateless_with_tree_map(f: Callable[[Any, Any], Any]) -> Pair:
    """Apply ``f(update, param)`` to each leaf, see `jopt.stateless_with_tree_map`."""
    return without_state(jopt.stateless_with_tree_map(f))
