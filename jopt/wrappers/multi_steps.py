"""Accumulation in other forms: two functions, and under optax's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import DTypeLike

from jopt.core.transformation import GradientTransformation, OptState, Params, Updates
from jopt.values.arguments import abbreviated
from jopt.wrappers.accumulation import AccumulateState, Accumulation, accumulate


def accumulate_grads(
    tx: GradientTransformation,
    grads: Updates,
    state: OptState,
    params: Params | None = None,
    *,
    weight: float | jax.Array | None = None,
) -> OptState:
    """Add a gradient to the sum, and do nothing else: one half of `accumulate`.

    For loops that compile the two halves apart; the other is `emit`. Donate the state,
    and the sum is changed in place: the gradient and the sum are read, the sum is
    written, the parameters are not touched. The state is that of ``tx.update``, and
    the two ways may be mixed.

    Args:
      tx: What `accumulate` returned; its ``steps`` are not asked.
      grads: The gradients of a micro-batch.
      state: Its state.
      params: The parameters, which only a ``should_skip_update_fn`` may look at.
      weight: Of this micro-batch, >= 0; None is 1.

    Returns:
      The new state.

    Raises:
      TypeError: ``tx`` is no accumulation.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.accumulate(jopt.sgd(1.0), steps=2), jnp.ones(1)
    >>> add = jax.jit(jopt.accumulate_grads, static_argnums=0, donate_argnums=2)
    >>> state = tx.init(params)
    >>> for g in (1.0, 3.0):
    ...     state = add(tx, jnp.full(1, g), state)
    >>> updates, state = jopt.emit(tx, state, params)
    >>> updates
    Array([-2.], dtype=float32)
    """
    return _halves(tx, "accumulate_grads").add(grads, state, params, weight)[0]


def emit(
    tx: GradientTransformation,
    state: OptState,
    params: Params | None = None,
    **extra: Any,
) -> tuple[Updates, OptState]:
    """The optimizer step for the gradients in the sum: the other half of `accumulate`.

    See `accumulate_grads`. Where there is nothing in the sum (all was skipped, or had
    weight 0) the updates are zero and the state stays what it is.

    Args:
      tx: What `accumulate` returned.
      state: Its state.
      params: The parameters.
      **extra: What the inner transformation takes further.

    Returns:
      The updates, in the dtypes of ``params``, and the new state. A leaf that never got
      a gradient has a zero one here.

    Raises:
      TypeError: ``tx`` is no accumulation.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.accumulate(jopt.sgd(1.0), steps=2), jnp.ones(1)
    >>> state = jopt.accumulate_grads(tx, jnp.full(1, 2.0), tx.init(params))
    >>> jopt.emit(tx, state, params)[0]
    Array([-2.], dtype=float32)
    """
    return _halves(tx, "emit").emit(state, params, extra)


def _halves(tx: Any, name: str) -> Accumulation:
    if isinstance(tx, Accumulation):
        return tx
    raise TypeError(
        f"{name} takes a transformation that jopt.accumulate made first, got "
        f"{abbreviated(tx)}. What comes before the accumulation in a chain is "
        "for the loop to apply"
    )


def has_updated(state: OptState) -> jax.Array:
    """Whether the last gradient made a step, or was only added to the sum.

    Args:
      state: The state of `accumulate`, or one with it inside.

    Returns:
      One bool, for what should happen once per optimizer step.

    Raises:
      ValueError: There is no accumulation in the state, or more than one.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.accumulate(jopt.sgd(1.0), steps=2), jnp.ones(1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     _, state = tx.update(params, state, params)
    ...     print(jopt.has_updated(state))
    False
    True
    False
    """

    def is_one(x):
        return isinstance(x, AccumulateState)

    found = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    if len(found) != 1:
        raise ValueError(
            "has_updated takes the state of jopt.accumulate, or a state with one "
            f"inside, but here are {len(found)}"
        )
    (own,) = found
    # A gradient that was skipped after a step left the sum as empty as that did.
    return (own.mini_step == 0) & (own.skipped == 0) & (own.gradient_step > 0)


def MultiSteps(
    opt: GradientTransformation,
    every_k_schedule: int | Callable[[jax.Array], Any],
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[..., Any] | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> Accumulation:
    """optax's name and arguments for `accumulate`.

    Args:
      opt: The inner transformation.
      every_k_schedule: ``steps`` of `accumulate`.
      use_grad_mean: See `accumulate`.
      should_skip_update_fn: See `accumulate`.
      accumulator_dtype: See `accumulate`.

    Returns:
      A transformation, which also has optax's ``gradient_transformation()`` and
      ``has_updated(state)``.

    Raises:
      ValueError: The number of steps is below 1.

    >>> import jopt, jax.numpy as jnp
    >>> jopt.MultiSteps(jopt.sgd(0.1), every_k_schedule=4).gradient_transformation()
    accumulate(inner=sgd(learning_rate=0.1), steps=4)
    """
    tx = accumulate(
        opt,
        every_k_schedule,
        use_grad_mean,
        should_skip_update_fn=should_skip_update_fn,
        accumulator_dtype=accumulator_dtype,
    )
    assert isinstance(tx, Accumulation)
    return tx
