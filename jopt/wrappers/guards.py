"""Guards: what is not finite changes nothing.

    finite <- every entry of g, and the value if the update is told one
    u      <- the inner update   if finite, else 0
    state  <- the inner state after the update   if finite, else the one before it

Each array is chosen as a whole, old or new, in the pass that computes the new one:
there is no branch, nothing waits for the host, and nothing is multiplied by zero, which
would keep a NaN. State: three scalars. Compiled for a TPU, a step of adamw moves 4
bytes more per float32 parameter, 32 for 28, for the gradient is read twice. XLA for the
CPU fuses less and copies the old state first: there a step takes several times as long.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.around import VALUE, around
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import (
    GradientTransformation,
    OptState,
    Params,
    Updates,
)
from jopt.tree.row_sparse import is_rows, touched
from jopt.values import arguments
from jopt.values.arguments import abbreviated


class ApplyIfFiniteState(NamedTuple):
    """State of `skip_nonfinite` and `apply_if_finite`."""

    notfinite_count: jax.Array  # int32 scalar, steps in a row that were skipped
    last_finite: jax.Array  # bool scalar, whether the last step was not
    total_notfinite: jax.Array  # int32 scalar, all steps that were skipped
    inner_state: Any  # of the inner transformation
    metrics = ("notfinite_count", "last_finite", "total_notfinite")


@transformation
def skip_nonfinite(inner: GradientTransformation) -> GradientTransformation:
    """Leave out every step whose gradients, or loss, have a NaN or an infinity.

    Such a step gives zero updates and leaves the inner state as it is, bit for bit, so
    moments, counts and schedules go on as if it had not been. However many there are in
    a row, the next finite step is applied.

    Args:
      inner: A transformation, usually the whole optimizer. What is outside of the guard
        still sees the NaN.

    Returns:
      A transformation. If an update is told ``value``, that has to be finite too. On
      several devices all must be told the same: average gradients and value first.

    Raises:
      ValueError: ``inner`` holds a dynamic loss scale, which has to see the step to
        come down; it skips such steps itself.

    >>> import jopt
    >>> tx, params = jopt.skip_nonfinite(jopt.sgd(1.0)), jnp.ones(2)
    >>> state = tx.init(params)
    >>> for g in (jnp.array([1.0, jnp.nan]), jnp.ones(2)):
    ...     updates, state = tx.update(g, state, params)
    ...     print(updates, state.last_finite, state.total_notfinite)
    [0. 0.] False 1
    [-1. -1.] True 1
    """
    return _guard("skip_nonfinite", inner)


@transformation
def apply_if_finite(
    inner: GradientTransformation, max_consecutive_errors: int
) -> GradientTransformation:
    """`skip_nonfinite` by optax's name, with its arguments and its state.

    One thing is other than in optax: after ``max_consecutive_errors`` bad steps in a
    row optax applies the next one, and its moments are NaN from then on. Here no step
    that is not finite is ever applied. The number is for the training loop, which may
    stop when ``state.notfinite_count`` is above it.

    Args:
      inner: A transformation.
      max_consecutive_errors: A number of steps, >= 0.

    Returns:
      A transformation; see `skip_nonfinite`.

    Raises:
      ValueError: ``max_consecutive_errors`` is negative.

    >>> import jopt
    >>> tx, bad = jopt.apply_if_finite(jopt.sgd(1.0), 2), jnp.array([jnp.inf])
    >>> state = tx.init(jnp.ones(1))
    >>> for g in [bad, bad, bad, jnp.ones(1)]:
    ...     updates, state = tx.update(g, state)
    ...     print(updates, state.notfinite_count > 2)
    [0.] False
    [0.] False
    [0.] True
    [-1.] False
    """
    arguments.at_least(0, max_consecutive_errors=max_consecutive_errors)
    return _guard("apply_if_finite", inner)


def _guard(owner: str, inner: GradientTransformation) -> GradientTransformation:
    inner = as_transformation(inner, f"{owner}: inner")

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        own = inner_init(owner, inner, params)
        return ApplyIfFiniteState(zero, jnp.ones((), bool), jnp.copy(zero), own)

    def update(updates, state, params=None, **extra):
        new, own = inner.update(updates, state.inner_state, params, **extra)
        finite = all_finite(updates, extra.get("value"))
        new, own = chosen(finite, (new, own), (None, state.inner_state))
        counts = bad_steps(finite, state.notfinite_count, state.total_notfinite)
        return new, ApplyIfFiniteState(counts[0], finite, counts[1], own)

    return around(inner, init, update, also=VALUE)


# What every wrapper that may leave out a step is made of.


def has_loss_scale(state: OptState) -> bool:
    """Whether this is, or holds, the state of a `dynamic_loss_scale`."""
    return bool(tree.get_all_with_path(state, "DynamicLossScaleState"))


def inner_init(owner: str, inner: GradientTransformation, params: Params) -> OptState:
    """The state of ``inner``, if it has no loss scale.

    A scale that is too large makes gradients infinite. If a guard around it left out
    that step, the scale would stay, and so would every step after it be left out.
    """
    state = inner.init(params)
    if has_loss_scale(state):
        raise ValueError(
            f"{owner}: inner holds a dynamic_loss_scale, whose scale has to change in "
            "the steps that are skipped. Put it outside: "
            f"dynamic_loss_scale({owner}(…)). Got {inner!r}"
        )
    return state


@jax.jit
def all_finite(updates: Updates, value: Any = None) -> jax.Array:
    """Whether no entry is NaN or infinite; None is no leaf."""
    found = jnp.ones((), bool)
    for x in jax.tree.leaves((updates, value), is_leaf=is_rows):
        found &= _is_finite(touched(x))
    return found


@jax.jit
def _is_finite(x: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(x))


def chosen(
    take: jax.Array, new: tuple[Updates, OptState], old: tuple[Updates, OptState]
) -> tuple[Updates, OptState]:
    """Updates and state: all the new ones or all the old ones.

    Old updates that are None are zeros.
    """
    (updates, state), (passed, kept) = new, old
    if jax.tree.structure(state) != jax.tree.structure(kept):
        raise ValueError(
            "the inner state has another structure after an update than before, so a "
            "step cannot be left out: it was "
            f"{abbreviated(kept)}, and is {abbreviated(state)}"
        )
    return _chosen(take, updates, passed, state, kept)


@jax.jit
def _chosen(
    take: jax.Array, updates: Updates, passed: Updates, state: OptState, kept: OptState
) -> tuple[Updates, OptState]:
    def one(new, old):
        new, old = jnp.asarray(new), jnp.asarray(old)
        # A foreign state may come back in another dtype.
        new = new if new.dtype == old.dtype else new.astype(old.dtype)
        return jax.lax.select(take, new, old)

    if passed is None:
        passed = jax.tree.map(jnp.zeros_like, updates)
    return jax.tree.map(one, updates, passed), jax.tree.map(one, state, kept)


def bad_steps(
    good: jax.Array, in_a_row: jax.Array, total: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The bad steps in a row, and all of them, after one that is good or is not."""
    more = tree.safe_increment(in_a_row), tree.safe_increment(total)
    return jnp.where(good, 0, more[0]), jnp.where(good, total, more[1])
