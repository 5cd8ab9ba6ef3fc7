"""The leaves of a tree, checked, and aligned with the leaves of other trees.

Leafwise rules leave all of this to the engine. Transformations that work on whole trees
(matrix methods, averages, wrappers) do it with `Leaves`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import tree_checks
from jopt.tree.row_sparse import is_rows


class Leaves:
    """The leaves of updates or parameters, in the order of the tree, with its Nones.

    Args:
      whole: The tree.
      name: The name of the tree in errors.
      real_only: The name of a transformation that is not defined for complex leaves.
      row_sparse: Whether a leaf may be row-sparse; it is one leaf then.

    Raises:
      TypeError: A leaf cannot be optimized; the message has its path.

    >>> leaves = Leaves({"b": None, "w": jnp.ones(2, jnp.bfloat16)})
    >>> leaves.values[0], leaves.widened()["w"].dtype
    (None, dtype('float32'))
    >>> leaves.rounded(leaves.tree([None, jnp.zeros(2)]))["w"].dtype
    dtype(bfloat16)
    """

    def __init__(
        self,
        whole: Any,
        name: str = "updates",
        *,
        real_only: str | None = None,
        row_sparse: bool = False,
    ):
        # A row-sparse leaf that is taken apart here fails the check below, by its path.
        is_leaf = tree.is_leaf if row_sparse else _is_none
        self.whole = whole
        self.values, self.treedef = jax.tree.flatten(whole, is_leaf=is_leaf)
        tree_checks.leaves(self.values, whole, name, [real_only] if real_only else [])

    @property
    def present(self) -> list[int]:
        """The positions of the leaves that are not None."""
        return [i for i, x in enumerate(self.values) if x is not None]

    def aligned(
        self, other: Any, name: str, *, shapes: Callable[..., Any] | None = None
    ) -> list[Any]:
        """The leaves of another tree at the positions of these.

        Args:
          other: A tree of the same structure.
          name: Its name in errors.
          shapes: From a leaf's shape, that of its counterpart; None means equal shapes.

        Raises:
          ValueError: The structures or shapes do not agree.
        """
        values, treedef = self.values, self.treedef
        return tree_checks.aligned(
            self.whole, values, treedef, other, name, shapes=shapes
        )

    def each(self, f: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        """``f(leaf, *values)`` for every leaf that is not None; None for the others."""
        return [
            None if x is None else f(x, *values)
            for x, *values in zip(self.values, *columns, strict=True)
        ]

    def tree(self, values: Sequence[Any]) -> Any:
        """The tree with these values for leaves."""
        return self.treedef.unflatten(values)

    def widened(self) -> Any:
        """The tree with its leaves in the compute dtype.

        A transformation inside that is not leafwise stores its updates in the dtype of
        its gradient; narrow ones would be rounded twice.
        """
        return self.tree(self.each(wide))

    def rounded(self, other: Any) -> Any:
        """Another tree, in the dtypes of these leaves."""
        return self.tree(self.each(_rounded, self.treedef.flatten_up_to(other)))


def densified(updates: Any) -> Any:
    """The updates with row-sparse leaves made dense, for what works on all rows.

    >>> import jopt
    >>> g = jopt.RowSparse(jnp.array([1]), jnp.ones((1, 1)), num_rows=2)
    >>> densified({"table": g})["table"].ravel()
    Array([0., 1.], dtype=float32)
    """
    leaves = Leaves(updates, row_sparse=True)
    return leaves.tree(leaves.each(lambda g: g.todense() if is_rows(g) else g))


def wide(x: Any) -> jax.Array:
    """An array in the compute dtype."""
    x = jnp.asarray(x)
    return x.astype(tree.compute_dtype(x.dtype))


def _rounded(like: Any, x: Any) -> Any:
    if is_rows(x):
        return x.with_rows(x.rows.astype(like.dtype))
    return x.astype(jnp.result_type(like))


def _is_none(x: Any) -> bool:
    return x is None
