"""Gradient accumulation: one optimizer step for several gradients.

    acc <- acc + g;   every ``steps`` gradients:  u <- inner(acc / steps),  acc <- 0

State: 4 bytes per float32 parameter beyond the inner transformation's. The inner
transformation runs only in the step that emits, and counts those steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import agreement, checks, tree
from jopt.base import GradientTransformation, OptState, Params, Updates
from jopt.chain import as_transformation
from jopt.evaluation import eval_params, has_readout
from jopt.factory import transformation
from jopt.leafwise import zeros


class AccumulateState(NamedTuple):
    """State of `accumulate`."""

    mini_step: jax.Array  # int32 scalar, gradients since the last emission
    gradient_step: jax.Array  # int32 scalar, emissions so far
    inner_opt_state: Any  # of the inner transformation
    acc_grads: Any  # sum of the gradients since then, like params


@transformation
def accumulate(
    inner: GradientTransformation, steps: int, use_grad_mean: bool = True
) -> GradientTransformation:
    """Run a transformation on the mean of several gradients in a row.

    All other updates are zero, and cost no more than the addition.

    Args:
      inner: A transformation.
      steps: How many gradients one step is made of, >= 1.
      use_grad_mean: Whether it gets the mean of them, or the sum.

    Returns:
      A transformation. Extra arguments of the last gradient go to the inner one.

    Raises:
      ValueError: ``steps`` is below 1.

    Equal to Keras's ``gradient_accumulation_steps`` at a constant learning rate (its
    schedules count gradients, these count steps) and to ``optax.MultiSteps``.

    >>> import jopt
    >>> tx = jopt.accumulate(jopt.sgd(1.0), steps=2)
    >>> state, params = tx.init(jnp.ones(1)), jnp.ones(1)
    >>> for g in (1.0, 3.0):
    ...     updates, state = tx.update(jnp.full(1, g), state, params)
    ...     print(updates)
    [0.]
    [-2.]
    """
    inner = as_transformation(inner, "accumulate: inner")
    checks.at_least(1, steps=steps)

    def init(params: Params) -> OptState:
        agreement.leaves(jax.tree.leaves(params), params, "params")
        zero = jnp.zeros((), jnp.int32)
        sums = jax.tree.map(zeros().init, params)
        return AccumulateState(zero, jnp.copy(zero), inner.init(params), sums)

    def update(
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Updates, OptState]:
        leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        agreement.leaves(leaves, updates, "updates")
        sums = agreement.aligned(
            updates, leaves, treedef, state.acc_grads, "the state's acc_grads"
        )
        sums = [
            s if g is None else _added(s, g) for s, g in zip(sums, leaves, strict=True)
        ]
        divisor = steps if use_grad_mean else 1

        def emit(own: OptState) -> tuple[list[Any], OptState, list[Any]]:
            # The inner transformation gets the sums as wide as they are kept.
            grads = [
                None if g is None else s / divisor
                for s, g in zip(sums, leaves, strict=True)
            ]
            new, own = inner.update(treedef.unflatten(grads), own, params, **extra)
            new = [
                None if g is None else u.astype(g.dtype)
                for u, g in zip(treedef.flatten_up_to(new), leaves, strict=True)
            ]
            return new, own, _zeros(sums)

        def wait(own: OptState) -> tuple[list[Any], OptState, list[Any]]:
            return _zeros(leaves), own, sums

        last = state.mini_step == steps - 1
        new, own, sums = jax.lax.cond(last, emit, wait, state.inner_opt_state)
        state = AccumulateState(
            jnp.where(last, 0, state.mini_step + 1),
            jnp.where(
                last, tree.safe_increment(state.gradient_step), state.gradient_step
            ),
            own,
            treedef.unflatten(sums),
        )
        return treedef.unflatten(new), state

    def readout(state: OptState, params: Params) -> Params:
        return eval_params(inner, state.inner_opt_state, params)

    return GradientTransformation(
        init,
        update,
        children={"inner_opt_state": inner},
        readout=readout if has_readout(inner) else None,
    )


@jax.jit
def _added(total: jax.Array, g: jax.Array) -> jax.Array:
    return total + g.astype(total.dtype)


def _zeros(arrays: list[Any]) -> list[Any]:
    return [None if x is None else jnp.zeros_like(x) for x in arrays]
