"""Leaves by name, and trees side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jopt.tree.row_sparse import is_leaf, is_rows


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as text: ``dense/kernel``, alike for every container.

    nnx wraps a parameter in a variable, which adds a last ``value`` to the path at
    ``init`` but not at ``update``; it is dropped, so that one name serves both.

    Args:
      path: As from ``jax.tree_util.tree_leaves_with_path``.

    >>> import jax
    >>> tree = {"dense": {"kernel": 1.0}}
    >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    ['dense/kernel']
    """
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_with_names(tree: Any, none: bool = False) -> list[tuple[str, Any]]:
    """``(path, leaf)`` of every leaf; with ``none=True`` also of the Nones.

    Args:
      tree: Any tree.
      none: Whether a None is a leaf.

    >>> leaves_with_names({"a": None, "b": [1.0]}, none=True)
    [('a', None), ('b/0', 1.0)]
    """
    found, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=is_leaf if none else is_rows
    )
    return [(path_name(path), leaf) for path, leaf in found]


def is_none(x: Any) -> bool:
    """Whether it is None, which is a leaf if one says so."""
    return x is None


def map_leaves(
    f: Callable[..., Any],
    *,
    same_shapes: bool = True,
    gaps: bool = False,
    **trees: Any,
) -> Any:
    """``f`` of the leaves of all trees that are at the same place, as a tree.

    Args:
      f: A function of as many leaves as there are trees. It is not called for None,
        which stays None.
      same_shapes: Whether leaves at the same place must have the same shape, or be
        single numbers.
      gaps: Whether the first tree may have None where the others have leaves; then
        ``f`` is called with the None.
      **trees: The trees, under the names that errors call them by.

    Raises:
      ValueError: The trees have different structures, or leaves different shapes.

    >>> map_leaves(max, x={"a": 1, "b": None}, y={"a": 2, "b": None})
    {'a': 2, 'b': None}
    """
    (name, first), *others = trees.items()
    leaves, treedef = jax.tree.flatten(first, is_leaf=is_leaf)
    columns = [aligned(name, first, n, other, gaps=gaps) for n, other in others]
    results = []
    for i, row in enumerate(zip(leaves, *columns, strict=True)):
        try:
            if same_shapes:
                _check_shapes(list(trees), row)
            results.append(None if all(map(is_none, row)) else f(*row))
        except Exception as error:
            path, leaf = leaves_with_names(first, none=True)[i]
            error.add_note(f"This is about leaf {path!r} of shape {np.shape(leaf)}.")
            raise
    return treedef.unflatten(results)


def _check_shapes(names: Sequence[str], row: Sequence[Any]) -> None:
    shapes = {n: np.shape(x) for n, x in zip(names, row, strict=True) if x is not None}
    if len(set(shapes.values()) - {()}) > 1:
        shown = ", ".join(f"{shape} in {name}" for name, shape in shapes.items())
        raise ValueError(f"a leaf has different shapes: {shown}. None is broadcast.")


def aligned(
    name: str, tree: Any, other_name: str, other: Any, *, gaps: bool = False
) -> list[Any]:
    """The leaves of ``other`` in the order of the leaves and Nones of ``tree``.

    Args:
      name: What the tree is called in errors.
      tree: The tree that says the structure.
      other_name: What the other is called.
      other: The other tree.
      gaps: Whether the tree may have None where the other has a leaf.

    Raises:
      ValueError: They have different structures; the error says where.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_leaf)
    try:
        found = treedef.flatten_up_to(other)
    except ValueError:
        found = None
    if found is None or not all(
        _alike(x, y) or (gaps and x is None and _is_leaf(y))
        for x, y in zip(leaves, found, strict=True)
    ):
        where = difference(name, tree, other_name, other)
        raise ValueError(f"{name} and {other_name} have different structures; {where}")
    return found


def _alike(leaf: Any, other: Any) -> bool:
    if leaf is None or other is None:
        return leaf is other
    return _is_leaf(other)


def _is_leaf(x: Any) -> bool:
    return is_rows(x) or jax.tree_util.all_leaves([x])


def children(node: Any) -> list[tuple[Any, Any]]:
    """The steps of a path from a node, and what they lead to; none from a leaf.

    Args:
      node: Any tree.

    >>> children({"a": None, "b": [1, 2]})
    [(DictKey(key='a'), None), (DictKey(key='b'), [1, 2])]
    """
    found, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    return [(path[0], child) for path, child in found if path]


def difference(
    name: str, tree: Any, other_name: str, other: Any, *, none: bool = False
) -> str:
    """Where two trees that are called so in an error differ in structure.

    Args:
      name: What the first tree is called.
      tree: The first tree.
      other_name: What the second tree is called.
      other: The second tree.
      none: Whether a None is a leaf.

    >>> difference("x", {"a": 1.0, "b": 2.0}, "y", {"a": 1.0})
    "only in x: 'b'"
    """
    ours, theirs = ([n for n, _ in leaves_with_names(t, none)] for t in (tree, other))
    parts = []
    for who, paths, those in ((name, ours, theirs), (other_name, theirs, ours)):
        if lone := [path for path in paths if path not in set(those)]:
            more = f" and {len(lone) - 4} more" if len(lone) > 4 else ""
            shown = [repr(path) if path else "the tree itself" for path in lone[:4]]
            parts.append(f"only in {who}: {', '.join(shown)}{more}")
    return "; ".join(parts) or _containers(*map(jax.tree.structure, (tree, other)))


def _containers(ours: Any, theirs: Any) -> str:
    for a, b in zip(ours.children(), theirs.children(), strict=True):
        if a != b:
            return _containers(a, b)
    kinds = [node[0].__name__ if (node := x.node_data()) else x for x in (ours, theirs)]
    if kinds[0] != kinds[1]:
        return f"the same leaves in a {kinds[0]} and in a {kinds[1]}"
    return f"the same leaves in two {kinds[0]} with different static fields"
