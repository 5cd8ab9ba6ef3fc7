"""Matrix methods for the hidden matrices of a model, another optimizer for the rest."""

from __future__ import annotations

import jax

from jopt import tree
from jopt.algorithms.matrices import is_hidden
from jopt.core import masks
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened
from jopt.wrappers.masking import partition


def split_hidden(
    name: str,
    for_matrices: GradientTransformation,
    for_others: GradientTransformation,
    hidden: Mask,
) -> GradientTransformation:
    """Return the partition of a model into its hidden matrices and all other leaves.

    Args:
      name: The label of the hidden matrices; that of the others is ``"adam"``.
      for_matrices: Their optimizer, which is not leafwise.
      for_others: That of the others.
      hidden: The leaves for the former; see `jopt.Mask`. None selects by shape and
        name, see `matrices.is_hidden`.
    """

    def labels(params):
        chosen = masks.select(is_hidden if hidden is None else hidden, params)
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        return treedef.unflatten(name if on else "adam" for on in chosen)

    # What is not leafwise rounds its updates for the next member, unless widened.
    return partition({name: widened(for_matrices), "adam": for_others}, labels)
