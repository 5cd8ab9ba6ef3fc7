"""Names of leaves, and functions of several trees side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jopt.tree.row_sparse import is_leaf, is_rows
from jopt.tree.variables import without_variables


def path_name(path: tuple[Any, ...]) -> str:
    """Return a key path as text, such as ``dense/kernel``, for every container alike.

    nnx wraps a parameter in a variable, which appends ``value`` to the path at ``init``
    but not at ``update``. It is dropped, so that a leaf has one name.

    Args:
      path: A key path, as from ``jax.tree_util.tree_leaves_with_path``.

    >>> import jax
    >>> tree = {"dense": {"kernel": 1.0}}
    >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    ['dense/kernel']
    """
    return jax.tree_util.keystr(_without_value(path), simple=True, separator="/")


def _without_value(path: tuple[Any, ...]) -> tuple[Any, ...]:
    is_value = len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value")
    return path[:-1] if is_value else path


def leaves_with_keys(
    tree: Any, none: bool = False
) -> list[tuple[tuple[str, ...], Any]]:
    """Return ``(keys, leaf)`` of every leaf.

    The keys tell two leaves apart that have one path, because a key has a slash in it.

    Args:
      tree: Any tree.
      none: Whether None counts as a leaf.

    >>> leaves_with_keys({"a": {"b": 1.0}, "a/b": 2.0})
    [(('a', 'b'), 1.0), (('a/b',), 2.0)]
    """
    leaves, paths = _named(tree, none)
    return list(zip(paths.keys, leaves, strict=True))


def by_name(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the leaves by path.

    Args:
      named: The path of each leaf, and the leaf.

    Raises:
      ValueError: Two leaves have the same path.

    >>> by_name(leaves_with_names({"a": {"b": 1.0}}))
    {'a/b': 1.0}
    """
    leaves: dict[str, Any] = {}
    for name, leaf in named:
        if name in leaves:
            raise ValueError(f"two leaves have the path {name!r}; rename one of them")
        leaves[name] = leaf
    return leaves


def leaves_with_names(tree: Any, none: bool = False) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` of every leaf.

    Args:
      tree: Any tree.
      none: Whether None counts as a leaf.

    >>> leaves_with_names({"a": None, "b": [1.0]}, none=True)
    [('a', None), ('b/0', 1.0)]
    """
    leaves, paths = _named(tree, none)
    return list(zip(paths.names, leaves, strict=True))


class _Paths:
    """The paths of the leaves of a structure, as text and as texts of their keys."""

    def __init__(self, paths: list[tuple[Any, ...]]):
        self.paths = paths

    @functools.cached_property
    def names(self) -> list[str]:
        return [path_name(path) for path in self.paths]

    @functools.cached_property
    def keys(self) -> list[tuple[str, ...]]:
        return [
            tuple(path_name((key,)) for key in _without_value(path))
            for path in self.paths
        ]


# Paths depend on the structure only, and making their text takes long. The structure of
# a model or a state comes back in every trace.
_KNOWN: dict[Any, _Paths] = {}
MOST_KNOWN = 64


def _named(tree: Any, none: bool) -> tuple[list[Any], _Paths]:
    is_end = is_leaf if none else is_rows
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_end)
    try:
        known = _KNOWN.get(treedef)
    except TypeError:  # a node has static fields without a hash
        return leaves, _paths_of(tree, is_end)
    if known is None:
        if len(_KNOWN) >= MOST_KNOWN:
            _KNOWN.clear()
        known = _KNOWN[treedef] = _paths_of(tree, is_end)
    return leaves, known


def _paths_of(tree: Any, is_end: Callable[[Any], bool]) -> _Paths:
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_end)
    return _Paths([path for path, _ in pairs])


def is_none(x: Any) -> bool:
    """Return whether ``x`` is None, for ``is_leaf`` of functions of ``jax.tree``."""
    return x is None


def map_leaves(
    f: Callable[..., Any],
    *,
    same_shapes: bool = True,
    gaps: bool = False,
    **trees: Any,
) -> Any:
    """Return the tree of ``f`` applied to the leaves of all trees at the same place.

    Args:
      f: A function of as many leaves as there are trees. It is not called for None,
        which stays None.
      same_shapes: Whether leaves at the same place must have the same shape or be
        single numbers.
      gaps: Whether the first tree may have None where the others have leaves; ``f`` is
        then called with the None.
      **trees: The trees, by the names to use in errors.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

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
        raise ValueError(f"a leaf has different shapes: {shown}. Nothing is broadcast.")


def aligned(
    name: str, tree: Any, other_name: str, other: Any, *, gaps: bool = False
) -> list[Any]:
    """Return the leaves of ``other`` in the order of the leaves and Nones of ``tree``.

    Args:
      name: The name of ``tree`` in errors.
      tree: The tree that defines the structure.
      other_name: The name of ``other`` in errors.
      other: The other tree.
      gaps: Whether ``tree`` may have None where ``other`` has a leaf.

    Raises:
      ValueError: The trees differ in structure; the error says where.
    """
    tree, other = without_variables((tree, other))
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_leaf)
    try:
        other_leaves = treedef.flatten_up_to(other)
    except ValueError:
        other_leaves = None
    # flatten_up_to returns subtrees where tree has leaves, so each one is checked.
    if other_leaves is None or not all(
        _match(x, y) or (gaps and x is None and _is_leaf(y))
        for x, y in zip(leaves, other_leaves, strict=True)
    ):
        where = difference(name, tree, other_name, other)
        raise ValueError(f"{name} and {other_name} have different structures; {where}")
    return other_leaves


def _match(leaf: Any, other: Any) -> bool:
    if leaf is None or other is None:
        return leaf is other
    return _is_leaf(other)


def _is_leaf(x: Any) -> bool:
    return is_rows(x) or jax.tree_util.all_leaves([x])


def children(node: Any) -> list[tuple[Any, Any]]:
    """Return ``(key, child)`` for every child of a node; none for a leaf.

    Args:
      node: Any tree.

    >>> children({"a": None, "b": [1, 2]})
    [(DictKey(key='a'), None), (DictKey(key='b'), [1, 2])]
    """
    pairs, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    return [(path[0], child) for path, child in pairs if path]


def difference(
    name: str, tree: Any, other_name: str, other: Any, *, none: bool = False
) -> str:
    """Describe where two trees differ in structure, for an error.

    Args:
      name: The name of the first tree.
      tree: The first tree.
      other_name: The name of the second tree.
      other: The second tree.
      none: Whether None counts as a leaf.

    >>> difference("x", {"a": 1.0, "b": 2.0}, "y", {"a": 1.0})
    "only in x: 'b'"
    >>> difference("x", {"a": {"b": 1.0}}, "y", {"a/b": 1.0})
    "only in x: 'a/b' (the keys 'a', 'b'); only in y: 'a/b' (the key 'a/b')"
    """
    p, q = ([keys for keys, _ in leaves_with_keys(t, none)] for t in (tree, other))
    same_path = {"/".join(keys) for keys in p} & {"/".join(keys) for keys in q}
    parts = []
    for owner, paths, other_paths in ((name, p, q), (other_name, q, p)):
        if lone := [keys for keys in paths if keys not in set(other_paths)]:
            more = f" and {len(lone) - 4} more" if len(lone) > 4 else ""
            shown = ", ".join(_shown(keys, same_path) for keys in lone[:4])
            parts.append(f"only in {owner}: {shown}{more}")
    # With the same paths, the trees differ in a container: a list and a tuple, say.
    return "; ".join(parts) or _containers(*map(jax.tree.structure, (tree, other)))


def _shown(keys: tuple[str, ...], same_path: set[str]) -> str:
    path = "/".join(keys)
    if not keys or path not in same_path:
        return repr(path) if keys else "the tree itself"
    what = "the key" if len(keys) == 1 else "the keys"
    return f"{path!r} ({what} {', '.join(map(repr, keys))})"


def _containers(treedef: Any, other: Any) -> str:
    for a, b in zip(treedef.children(), other.children(), strict=True):
        if a != b:
            return _containers(a, b)
    kinds = [
        node[0].__name__ if (node := x.node_data()) else x for x in (treedef, other)
    ]
    if kinds[0] != kinds[1]:
        return f"the same leaves in a {kinds[0]} and in a {kinds[1]}"
    return f"the same leaves in two {kinds[0]} with different static fields"
