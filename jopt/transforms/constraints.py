"""Constraints on the parameters after the update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.apply import add
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves, densified
from jopt.core.transformation import GradientTransformation, Place


# Where several gradients make a step, the parameters stay between the steps.
LAST = Place(last=True, once_per_step=True)


@transformation
def project(projection: Callable[..., Any], **options: Any) -> GradientTransformation:
    """Let the parameters end in a set: ``u <- P(p + u) - p``, last in a chain.

    `apply_updates` and everything that applies updates then arrives at ``P(p + u)``. A
    difference of two numbers is exact unless the step more than doubles or halves a
    parameter, or the updates have a narrower dtype; where it has to be rounded, it is
    rounded away from ``p + u``, so that no number leaves a box.

    Args:
      projection: ``projection(params) -> params``, such as those of `jopt.projections`.
        It is given the whole tree, with None for leaves that a mask leaves out: write
        ``masked(project(projection_simplex), "mixture")`` for some leaves, and
        ``lambda params: jax.tree.map(f, params)`` for one leaf at a time.
      **options: Further arguments of ``projection``.

    Returns:
      A transformation without state, which needs params. No later member of a chain may
      change the updates. `lookahead` around it keeps convex sets only.

    Raises:
      ValueError: ``projection`` returns another structure or other shapes.

    >>> import jopt
    >>> from jopt.projections import projection_box
    >>> tx = jopt.chain(jopt.sgd(1.0), jopt.project(projection_box, lower=-1, upper=1))
    >>> params, g = jnp.array([0.9, 0.1]), jnp.array([-0.5, 0.2])
    >>> jopt.step(tx, g, tx.init(params), params)[0]
    Array([ 1. , -0.1], dtype=float32)
    """

    def init(params):
        Leaves(params, "params")
        return NO_STATE

    def update(updates, state, params):
        leaves = Leaves(densified(updates))
        olds = leaves.aligned(params, "params")
        ahead = leaves.each(lambda u, p: add(p, u), olds)
        ends = leaves.aligned(
            projection(leaves.tree(ahead), **options), "the result of projection"
        )
        return leaves.tree(leaves.each(_arriving, olds, ahead, ends)), state

    return GradientTransformation(init, update, place=LAST)


@jax.jit
def _arriving(u: jax.Array, p: jax.Array, ahead: jax.Array, end: jax.Array) -> Any:
    """Return the update with which ``p`` arrives at ``end`` in place of ``ahead``."""
    wide = np.promote_types(tree.compute_dtype(p.dtype), tree.compute_dtype(u.dtype))
    end = end.astype(p.dtype)
    new = (end.astype(wide) - p.astype(wide)).astype(u.dtype)
    if not jnp.iscomplexobj(new):
        # One number further in the direction of the projection is far enough.
        found, fixed = add(p, new), jax.lax.stop_gradient(new)
        up, down = (
            jnp.nextafter(fixed, jnp.full_like(u, x)) for x in (np.inf, -np.inf)
        )
        new = jnp.where((end > ahead) & (found < end), up, new)
        new = jnp.where((end < ahead) & (found > end), down, new)
    return jnp.where(end == ahead, u, new)


@transformation
def keep_params_nonnegative() -> GradientTransformation:
    """Keep parameters nonnegative: ``u <- max(g, -p)``, so that ``p + u >= 0``.

    It is last in a chain. If the updates have a narrower dtype than the parameters, a
    parameter may stop just above zero. A negative parameter moves to zero.

    Returns:
      A transformation without state for real parameters; it needs params.

    >>> import jopt
    >>> tx, params = jopt.keep_params_nonnegative(), jnp.array([1.0, 1.0])
    >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(params), params)[0]
    Array([-1. ,  0.5], dtype=float32)
    """

    def init(params):
        Leaves(params, "params", real_only="keep_params_nonnegative")
        return NO_STATE

    def update(updates, state, params):
        leaves = Leaves(updates, real_only="keep_params_nonnegative")
        new = leaves.each(_nonnegative, leaves.aligned(params, "params"))
        return leaves.tree(new), state

    return GradientTransformation(init, update, place=LAST)


@jax.jit
def _nonnegative(g: jax.Array, p: jax.Array) -> jax.Array:
    wide = np.promote_types(tree.compute_dtype(g.dtype), tree.compute_dtype(p.dtype))
    p = p.astype(wide)
    u = jnp.maximum(g.astype(wide), -p).astype(g.dtype)
    # Rounding -p to g's dtype can take p + u below zero; the next number up cannot. The
    # leaf engine rounds after its rule, so this cannot be a leafwise rule.
    above = jnp.nextafter(jax.lax.stop_gradient(u), jnp.full_like(u, jnp.inf))
    return jnp.where(p + u.astype(wide) < 0, above, u)
