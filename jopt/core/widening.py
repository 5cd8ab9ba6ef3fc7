"""Updates stay wide between members that are not leafwise, and are rounded once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.transformation import GradientTransformation


def widened(inner: GradientTransformation) -> GradientTransformation:
    """Run a transformation with updates in the compute dtype, and round at the end.

    Leafwise neighbours in a chain pass their updates on unrounded. A member that is not
    leafwise, such as `scale_by_muon`, stores its updates in the dtype of the gradient,
    which loses digits between members if that dtype is narrow. Here the members see a
    wide gradient, and only the result is rounded to the dtype of the real one. The
    state is that of ``inner``.
    """

    def wide(g):
        is_number = jnp.issubdtype(jnp.result_type(g), jnp.inexact)
        return g.astype(tree.compute_dtype(g.dtype)) if is_number else g

    def update(updates, state, params=None, **extra):
        new, state = inner.update(jax.tree.map(wide, updates), state, params, **extra)
        return jax.tree.map(lambda g, u: u.astype(g.dtype), updates, new), state

    return GradientTransformation(
        inner.init,
        update,
        children=inner.children,
        state_class=inner.state_class,
        reach=inner.reach,
        treatment=inner.treatment,
        slots=inner.slots,
        recipe=inner.recipe,
    )
