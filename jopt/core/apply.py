"""``apply_updates`` and ``step``: from updates to parameters."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.core import tree_checks
from jopt.core.transformation import GradientTransformation, OptState, Params, Updates
from jopt.tree.row_sparse import RowSparse, is_rows
from jopt.values.arguments import abbreviated


P = TypeVar("P")
S = TypeVar("S")


def apply_updates(params: P, updates: Updates) -> P:
    """Add updates to parameters, leaf by leaf.

    The sum is formed in float32 or wider and rounded once, to the parameter's dtype.

    Args:
      params: The parameters.
      updates: Updates of the same structure and shapes. A parameter whose update is
        None stays unchanged, as do the rows that a `RowSparse` update does not touch.

    Returns:
      The new parameters, in the dtypes of the old.

    Raises:
      ValueError: The structures differ, or the shapes of a leaf.

    >>> apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, -0.5)})
    {'w': Array([0.5, 0.5], dtype=float32)}
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    old = tree_checks.aligned(updates, leaves, treedef, params, "params")
    new = []
    try:
        for p, u in zip(old, leaves, strict=True):
            if is_rows(u):
                new.append(_add_rows(p, u.coalesced()))
            else:
                new.append(p if u is None else _add(p, u))
    except Exception as error:
        tree_checks.of_jax(updates=updates, params=params)
        tree_checks.note_leaf(error, updates, len(new))
        raise
    return treedef.unflatten(new)


def _add(p: Any, u: Any) -> jax.Array:
    # Inside a trace a plain addition lowers to less code than a call; outside, a
    # compiled call is faster than several operations.
    if isinstance(u, Tracer) and jnp.result_type(p) == u.dtype == jnp.float32:
        return jax.lax.add(jnp.asarray(p), u)
    return _add_wide(p, u)


@jax.jit
def _add_wide(p: jax.Array, u: jax.Array) -> jax.Array:
    tree_checks.dtypes(u, p)
    wide = np.promote_types(tree.compute_dtype(p.dtype), u.dtype)
    return (p.astype(wide) + u.astype(wide)).astype(p.dtype)


@jax.jit
def _add_rows(p: jax.Array, u: RowSparse) -> jax.Array:
    return u.scattered(p, _add_wide(u.gathered(p), u.rows))


def step(
    tx: GradientTransformation,
    grads: Updates,
    state: S,
    params: P,
    **extra: Any,
) -> tuple[P, S]:
    """Take one compiled optimizer step, ``update`` and ``apply_updates``, outside jit.

    Args:
      tx: A transformation. Equal transformations share the compiled step.
      grads: The gradients.
      state: The optimizer state.
      params: The parameters.
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
    functions = tuple((n, x) for n, x in sorted(extra.items()) if callable(x))
    arrays = {n: x for n, x in extra.items() if not callable(x)}
    try:
        return _step(tx, functions, grads, state, params, arrays)
    except TypeError:
        tree_checks.of_jax(grads=grads, params=params, state=state)
        raise


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(
    tx: GradientTransformation,
    functions: tuple[tuple[str, Any], ...],
    grads: Updates,
    state: OptState,
    params: Params,
    arrays: dict[str, Any],
) -> tuple[Params, OptState]:
    updates, state = tx.update(grads, state, params, **dict(functions), **arrays)
    return apply_updates(params, updates), state
