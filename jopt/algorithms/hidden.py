"""Hidden matrices to a matrix method, all other leaves to another optimizer."""

from __future__ import annotations

import jax

from jopt import tree
from jopt.algorithms.matrices import is_hidden
from jopt.core import masks
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened
from jopt.wrappers.masking import partition


def for_hidden(
    name: str,
    matrices: GradientTransformation,
    others: GradientTransformation,
    hidden: Mask = None,
) -> GradientTransformation:
    """Return a `partition` into hidden matrices and, as ``"adam"``, all other leaves.

    Args:
      name: The label of the hidden matrices.
      matrices: Their transformation. Matrix methods are not leafwise: without `widened`
        each member of a chain would round.
      others: The transformation of the other leaves.
      hidden: The hidden matrices; None selects by shape and name, see `is_hidden`.

    >>> import jopt, jax.numpy as jnp
    >>> tx = for_hidden("muon", jopt.scale_by_muon(), jopt.adam(1e-3))
    >>> list(tx.init({"w": jnp.ones((2, 2))}))
    ['muon', 'adam']
    """

    def labels(params):
        chosen = masks.select(is_hidden if hidden is None else hidden, params)
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        return treedef.unflatten(name if on else "adam" for on in chosen)

    return partition({name: widened(matrices), "adam": others}, labels)
