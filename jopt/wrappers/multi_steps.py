"""Accumulation in other forms: as two functions, and under optax's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import DTypeLike

from jopt.core.leaves import densified
from jopt.core.transformation import GradientTransformation, OptState, Params, Updates
from jopt.tree.variables import sees_arrays
from jopt.values.arguments import abbreviated
from jopt.wrappers.accumulation import AccumulateState, Accumulation, accumulate


@sees_arrays("state")
def accumulate_grads(
    tx: GradientTransformation,
    grads: Updates,
    state: OptState,
    params: Params | None = None,
    *,
    weight: float | jax.Array | None = None,
) -> OptState:
    """Add a gradient to the sum, without an update: the first half of `accumulate`.

    For loops that compile the two halves separately; the other half is `emit`. If the
    state is donated, the sum is updated in place: the call reads the gradient and the
    sum and writes the sum; it does not touch the parameters. ``tx.update`` uses the
    same state, so calls of both kinds may be mixed.

    Args:
      tx: A transformation made by `accumulate`; its ``steps`` are ignored.
      grads: The gradients of a micro-batch.
      state: The state of ``tx``.
      params: The parameters; only a ``should_skip_update_fn`` reads them.
      weight: The weight of this micro-batch, >= 0; None means 1.

    Returns:
      The new state.

    Raises:
      TypeError: ``tx`` was not made by `accumulate`.

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
    halves = _halves(tx, "accumulate_grads")
    halves.check_state(state, "accumulate_grads(tx, grads, state, params)")
    return halves.add(densified(grads), state, params, weight)[0]


@sees_arrays("params", "state")
def emit(
    tx: GradientTransformation,
    state: OptState,
    params: Params | None = None,
    **extra: Any,
) -> tuple[Updates, OptState]:
    """Take the optimizer step for the sum: the second half of `accumulate`.

    The first half is `accumulate_grads`. If the sum is empty (every gradient was
    skipped or had weight 0), the updates are zero and the state does not change.

    Args:
      tx: A transformation made by `accumulate`.
      state: The state of ``tx``.
      params: The parameters.
      **extra: Extra arguments of the inner transformation.

    Returns:
      The updates, in the dtypes of ``params``, and the new state. The gradient of a
      leaf that never received one counts as zero.

    Raises:
      TypeError: ``tx`` was not made by `accumulate`.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.accumulate(jopt.sgd(1.0), steps=2), jnp.ones(1)
    >>> state = jopt.accumulate_grads(tx, jnp.full(1, 2.0), tx.init(params))
    >>> jopt.emit(tx, state, params)[0]
    Array([-2.], dtype=float32)
    """
    halves = _halves(tx, "emit")
    halves.check_state(state, "emit(tx, state, params)")
    return halves.emit(state, params, extra)


def _halves(tx: Any, name: str) -> Accumulation:
    if isinstance(tx, Accumulation):
        return tx
    raise TypeError(
        f"{name} takes a transformation made by jopt.accumulate as its first argument, "
        f"got {abbreviated(tx)}. If the accumulation is a member of a chain, apply the "
        "members before it in the training loop"
    )


@sees_arrays()
def has_updated(state: OptState) -> jax.Array:
    """Return whether the last gradient completed an optimizer step.

    Use it for work that should happen once per optimizer step.

    Args:
      state: The state of `accumulate`, or a state that contains it.

    Returns:
      One bool; False if the gradient was only added to the sum.

    Raises:
      ValueError: The state contains no accumulation, or more than one.

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

    def is_match(x):
        return isinstance(x, AccumulateState)

    matches = [x for x in jax.tree.leaves(state, is_leaf=is_match) if is_match(x)]
    if len(matches) != 1:
        raise ValueError(
            "has_updated takes a state with one jopt.accumulate in it, but this state "
            f"has {len(matches)}"
        )
    (match,) = matches
    # The sum is also empty if the first gradient after a step was skipped.
    return (match.mini_step == 0) & (match.skipped == 0) & (match.gradient_step > 0)


def MultiSteps(
    opt: GradientTransformation,
    every_k_schedule: int | Callable[[jax.Array], Any],
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[..., Any] | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> Accumulation:
    """Call `accumulate` by the name and the arguments of optax.

    Args:
      opt: The inner transformation.
      every_k_schedule: The number of gradients per step, >= 1, or a function of the
        number of emitted steps.
      use_grad_mean: If True, ``opt`` receives the mean of the gradients, else the sum.
      should_skip_update_fn: ``f(updates, gradient_step, params)`` returns whether to
        skip a gradient, for example `skip_not_finite`.
      accumulator_dtype: Storage dtype of the sum; None means float32 or wider.

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
