"""Constraints on the parameters after the update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves
from jopt.core.transformation import GradientTransformation


@transformation
def keep_params_nonnegative() -> GradientTransformation:
    """Keep parameters nonnegative: ``u <- max(g, -p)``, so that ``p + u >= 0``.

    Put it last in a chain. If the updates have a narrower dtype than the parameters, a
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

    return GradientTransformation(init, update)


@jax.jit
def _nonnegative(g: jax.Array, p: jax.Array) -> jax.Array:
    wide = np.promote_types(tree.compute_dtype(g.dtype), tree.compute_dtype(p.dtype))
    p = p.astype(wide)
    u = jnp.maximum(g.astype(wide), -p).astype(g.dtype)
    # Rounding -p to g's dtype can take p + u below zero; the next number up cannot. The
    # leaf engine rounds after its rule, so this cannot be a leafwise rule.
    above = jnp.nextafter(jax.lax.stop_gradient(u), jnp.full_like(u, jnp.inf))
    return jnp.where(p + u.astype(wide) < 0, above, u)
