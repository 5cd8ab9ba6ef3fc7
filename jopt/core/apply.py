"""From updates to parameters, and from parameters to those of a target network."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.core import tree_checks
from jopt.core.leaves_alike import kind, together
from jopt.core.transformation import Updates
from jopt.tree.row_sparse import RowSparse, is_rows
from jopt.tree.variables import sees_arrays
from jopt.values import arguments


P = TypeVar("P")
S = TypeVar("S")


@sees_arrays("params")
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
    updates = tree_checks.without_float0(updates)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    old = tree_checks.aligned(updates, leaves, treedef, params, "params")
    new: list[Any] = list(old)
    alike: dict[Any, list[int]] = collections.defaultdict(list)
    for i, (p, u) in enumerate(zip(old, leaves, strict=True)):
        if u is not None:
            alike[kind(u, p)].append(i)
    for same in alike.values():
        for some in together(same):
            ps, us = [old[i] for i in some], [leaves[i] for i in some]
            try:
                us = [u.coalesced() if is_rows(u) else u for u in us]
                sums = _add_some(ps, us) if len(some) > 1 else [add(ps[0], us[0])]
            except Exception as error:
                tree_checks.of_jax(updates=updates, params=params)
                tree_checks.note_leaf(error, updates, some[0])
                raise
            for i, x in zip(some, sums, strict=True):
                new[i] = x
    return treedef.unflatten(new)


@jax.jit
def _add_some(ps: list[Any], us: list[Any]) -> list[jax.Array]:
    return [add(p, u) for p, u in zip(ps, us, strict=True)]


def add(p: Any, u: Any) -> jax.Array:
    """Return the new parameter ``p + u``, where ``u`` may have unique rows."""
    if is_rows(u):
        return _add_rows(p, u)
    # Inside a trace a plain addition lowers to less code than a call; outside, a
    # compiled call is faster than several operations.
    if isinstance(u, Tracer) and jnp.result_type(p) == u.dtype == jnp.float32:
        return jax.lax.add(jnp.asarray(p), u)
    return _add_wide(p, u)


@jax.jit
def _add_wide(p: jax.Array, u: jax.Array) -> jax.Array:
    if u.dtype == p.dtype and not tree_checks.can_move(u):
        return p + u  # integers: zeros for a frozen leaf
    tree_checks.dtypes(u, p)
    wide = np.promote_types(tree.compute_dtype(p.dtype), u.dtype)
    return (p.astype(wide) + u.astype(wide)).astype(p.dtype)


@sees_arrays("old")
def incremental_update(new: Updates, old: P, step_size: float | jax.Array) -> P:
    """Move parameters towards others: ``old + step_size (new - old)``.

    This is the soft update of a target network in reinforcement learning, with its
    ``tau`` as ``step_size``. For an average that an optimizer state keeps, use
    `jopt.params_ema`.

    Args:
      new: The parameters to move to.
      old: The parameters to move, of the same structure and shapes. Leaves of ``new``
        that are None leave them unchanged.
      step_size: The fraction of the way, in [0, 1].

    Returns:
      The moved parameters, in the dtypes of ``old``.

    Raises:
      ValueError: ``step_size`` is not in [0, 1], or structures or shapes differ.

    Lillicrap et al., "Continuous control with deep reinforcement learning", 2016.

    >>> incremental_update(jnp.ones(2), jnp.zeros(2), 0.25)
    Array([0.25, 0.25], dtype=float32)
    """
    arguments.fraction(step_size=step_size)
    return _map_to(_towards, new, old, step_size)


@sees_arrays("old")
def periodic_update(
    new: Updates, old: P, steps: jax.Array | int, update_period: int
) -> P:
    """Return ``new`` in every ``update_period``-th step, else ``old``.

    This is the hard update of a target network in reinforcement learning.

    Args:
      new: The parameters to take.
      old: The parameters to keep, of the same structure and shapes. Leaves of ``new``
        that are None keep them always.
      steps: The step, an integer. ``new`` is taken in step 0 and every multiple of
        ``update_period``.
      update_period: Number of steps, >= 1.

    Returns:
      Parameters in the dtypes of ``old``.

    Raises:
      ValueError: ``update_period`` is less than 1, or structures or shapes differ.

    Mnih et al., "Human-level control through deep reinforcement learning", 2015.

    >>> new, old = jnp.ones(2), jnp.zeros(2)
    >>> [float(periodic_update(new, old, t, 3)[0]) for t in range(4)]
    [1.0, 0.0, 0.0, 1.0]
    """
    arguments.at_least(1, update_period=update_period)
    return _map_to(_chosen, new, old, jnp.asarray(steps) % update_period == 0)


def _map_to(f: Callable[..., Any], new: Updates, old: P, number: Any) -> P:
    """``f(new, old, number)`` of each leaf, in the dtype of the old."""
    leaves, treedef = jax.tree.flatten(new, is_leaf=tree.is_leaf)
    olds = tree_checks.aligned(new, leaves, treedef, old, "old")
    return treedef.unflatten(
        [y if x is None else f(x, y, number) for x, y in zip(leaves, olds, strict=True)]
    )


@jax.jit
def _towards(new: jax.Array, old: jax.Array, step_size: jax.Array) -> jax.Array:
    wide, w = tree.compute_dtype(old.dtype), tree.scalar(step_size)
    # Not old + w (new - old), which is not exact for w = 1.
    return ((1 - w) * old.astype(wide) + w * new.astype(wide)).astype(old.dtype)


@jax.jit
def _chosen(new: jax.Array, old: jax.Array, due: jax.Array) -> jax.Array:
    return jnp.where(due, new.astype(old.dtype), old)


@jax.jit
def _add_rows(p: jax.Array, u: RowSparse) -> jax.Array:
    return u.scattered(p, _add_wide(u.gathered(p), u.rows))
