"""Low precision is rounded to once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.transformation import GradientTransformation


def widened(inner: GradientTransformation) -> GradientTransformation:
    """The same, with updates in the compute dtype from the first member to the last.

    Leafwise neighbours in a chain hand their updates on as they are; what is not
    leafwise, such as `scale_by_muon`, has to store them, in the dtype of the gradient.
    Here that is wide enough, and the result is rounded to the gradient's at the end.
    The state is that of ``inner``.
    """

    def wide(g):
        is_number = jnp.issubdtype(jnp.result_type(g), jnp.inexact)
        return g.astype(tree.compute_dtype(g.dtype)) if is_number else g

    def update(updates, state, params=None, **extra):
        new, state = inner.update(jax.tree.map(wide, updates), state, params, **extra)
        return jax.tree.map(lambda g, u: u.astype(g.dtype), updates, new), state

    return GradientTransformation(
        inner.init, update, children=inner.children, reach=inner.reach
    )
