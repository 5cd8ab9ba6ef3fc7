"""An update that may skip its step, and may add to the parameters, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jopt.core import tree_checks
from jopt.core.apply import apply_updates
from jopt.core.transformation import GradientTransformation, OptState, Params, Updates
from jopt.native import switch
from jopt.tree.like import zeros_beside
from jopt.values.arguments import abbreviated


P = TypeVar("P")
S = TypeVar("S")


def fused_update(
    tx: Any,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: Mapping[str, Any],
    *,
    take: jax.Array | None = None,
    adds: bool = False,
) -> tuple[Updates | Params, OptState]:
    """Return ``tx.update``'s result where a step may be skipped, or is applied.

    What a transformation cannot do in the pass that computes an array is done
    afterwards.

    Args:
      tx: A transformation, jopt's or another library's.
      updates: See ``tx.update``.
      state: The state of ``tx``.
      params: The parameters.
      extra: Further arguments of ``tx.update``.
      take: One bool: if it is false, the updates are zero and the state stays.
      adds: Whether to return the new parameters instead of the updates.
    """
    options: dict[str, Any] = {"adds": True} if adds else {}
    if take is not None:
        options["take"] = take
    if options and options.keys() <= getattr(tx, "fused", frozenset()):
        return tx.call(options, updates, state, params, extra)
    new, new_state = tx.update(updates, state, params, **extra)
    if take is not None:
        new, new_state = select(take, (new, new_state), (None, state))
    return apply_updates(params, new) if adds else new, new_state


def step(
    tx: GradientTransformation,
    grads: Updates,
    state: S,
    params: P,
    *,
    donate: bool = False,
    **extra: Any,
) -> tuple[P, S]:
    """Take one compiled optimizer step: ``update`` and ``apply_updates`` in one pass.

    Args:
      tx: A transformation. Equal transformations share the compiled step.
      grads: The gradients.
      state: The optimizer state.
      params: The parameters.
      donate: Whether the new state and parameters take the memory of the old, which
        must not be used any more. Without it a step needs memory for both.
      **extra: Further arguments of ``tx.update``; functions must be hashable.

    Returns:
      The new ``(params, state)``.

    Raises:
      TypeError: ``tx`` is not a transformation.

    >>> import jopt
    >>> tx, params = jopt.sgd(0.5), jnp.ones(2)
    >>> params, state = jopt.step(tx, jnp.ones(2), tx.init(params), params)
    >>> params
    Array([0.5, 0.5], dtype=float32)
    """
    if not hasattr(tx, "update"):
        raise TypeError(
            "step takes a transformation, such as jopt.adam(1e-3), first, got "
            f"{abbreviated(tx)}"
        )
    static, arrays = _static(tx, extra)
    grads = tree_checks.without_float0(grads)
    moving = tree_checks.without_statics(params, grads)
    try:
        compiled = _donating_step if donate else _step
        new, state = compiled(static, grads, moving, state, arrays)
    except TypeError:
        tree_checks.of_jax(grads=grads, params=params, state=state)
        raise
    return tree_checks.with_statics(new, params), state


def lowered_step(
    tx: GradientTransformation,
    grads: Updates,
    state: OptState,
    params: Params,
    extra: Mapping[str, Any],
) -> Any:
    """Return what ``step(…, donate=True)`` lowers to, from shapes.

    Args:
      tx: See `step`.
      grads: Shapes of the gradients.
      state: Shapes of the state.
      params: Shapes of the parameters.
      extra: Further arguments of ``tx.update``, or their shapes.
    """
    static, arrays = _static(tx, extra)
    return _donating_step.lower(static, grads, params, state, arrays)


def _static(tx: Any, extra: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The static argument of the compiled step, and the arrays among the others."""
    functions = tuple((n, x) for n, x in sorted(extra.items()) if callable(x))
    arrays = {n: x for n, x in extra.items() if not callable(x)}
    return (tx, functions, switch.enabled()), arrays


def _fused_step(
    static: tuple[Any, tuple[tuple[str, Any], ...], bool],
    grads: Updates,
    params: Params,  # before the state, as in the result: JAX pairs donated arrays
    state: OptState,  # with results of their shape in this order
    arrays: dict[str, Any],
) -> tuple[Params, OptState]:
    tx, functions, _ = static
    extra = {**dict(functions), **arrays}
    return fused_update(tx, grads, state, params, extra, adds=True)


_step = jax.jit(_fused_step, static_argnums=0)
_donating_step = jax.jit(_fused_step, static_argnums=0, donate_argnums=(2, 3))


def select(
    take: jax.Array, new: tuple[Updates, OptState], old: tuple[Updates, OptState]
) -> tuple[Updates, OptState]:
    """Return the new updates and state if ``take``, else the old ones.

    Old updates of None stand for zeros.
    """
    (updates, state), (old_updates, old_state) = new, old
    if jax.tree.structure(state) != jax.tree.structure(old_state):
        raise ValueError(
            "the inner update changed the structure of the inner state, so a step "
            "cannot be skipped: it was "
            f"{abbreviated(old_state)}, and is {abbreviated(state)}"
        )
    return _select(take, updates, old_updates, state, old_state)


@jax.jit
def _select(
    take: jax.Array,
    updates: Updates,
    old_updates: Updates,
    state: OptState,
    old_state: OptState,
) -> tuple[Updates, OptState]:
    def select_leaf(new, old):
        new, old = jnp.asarray(new), jnp.asarray(old)
        # The state of a foreign transformation may come back in another dtype.
        new = new if new.dtype == old.dtype else new.astype(old.dtype)
        return jax.lax.select(take, new, old)

    if old_updates is None:
        old_updates = jax.tree.map(zeros_beside, updates)
    return (
        jax.tree.map(select_leaf, updates, old_updates),
        jax.tree.map(select_leaf, state, old_state),
    )
