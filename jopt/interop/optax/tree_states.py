"""Values in any tree by name, as optax finds them, and functions of its state's slots.

`jopt.tree.get` knows what a slot of a state is and searches only where names are those
of a state. optax searches everywhere: for keys of dicts, fields of NamedTuples, and
names of NamedTuples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jopt.tree import state_fields
from jopt.tree.state_fields import is_namedtuple, named_children, replaced
from jopt.tree.variables import sees_arrays
from jopt.values.arguments import suggestion


Path = tuple[Any, ...]
Filter = Callable[[Path, Any], bool] | None


class NamedTupleKey(state_fields.NamedTupleKey):
    """The key of a path for a field of a NamedTuple, with optax's text.

    >>> str(NamedTupleKey("ScaleByAdamState", "mu"))
    'ScaleByAdamState.mu'
    """

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


@sees_arrays()
def tree_get_all_with_path(
    tree: Any, key: Any, filtering: Filter = None
) -> list[tuple[Path, Any]]:
    """Return all values with a name, with their paths.

    Args:
      tree: Any tree.
      key: A key of a dict, a field of a NamedTuple, or the name of a NamedTuple.
      filtering: ``filtering(path, value)`` returns whether to include a value.

    Returns:
      Pairs ``(path, value)``; fields of NamedTuples are `NamedTupleKey` in a path.

    >>> tree_get_all_with_path({"a": {"lr": 0.1}}, "lr")
    [((DictKey(key='a'), DictKey(key='lr')), 0.1)]
    """
    return [(_optax_path(path), x) for path, x in _matches(tree, key, filtering)]


@sees_arrays()
def tree_get(tree: Any, key: Any, default: Any = None, filtering: Filter = None) -> Any:
    """Return the value with a name.

    Args:
      tree, key, filtering: See `tree_get_all_with_path`.
      default: The result if nothing has this name.

    Raises:
      KeyError: Several values have this name.

    >>> tree_get({"a": {"lr": 0.1}}, "lr"), tree_get({}, "lr", default=1.0)
    (0.1, 1.0)
    """
    matches = _matches(tree, key, filtering)
    if len(matches) > 1:
        paths = [jax.tree_util.keystr(_optax_path(path)) for path, _ in matches]
        raise KeyError(
            f"{key!r} is ambiguous: there are {paths}. Choose one with filtering="
        )
    return matches[0][1] if matches else default


@sees_arrays("tree")
def tree_set(tree: Any, filtering: Filter = None, /, **kwargs: Any) -> Any:
    """Replace values by name, as they are, without a check or a cast.

    As in optax, inside a dict or NamedTuple that has one of the names, values are
    replaced in direct children only: ``count`` of ``inject_hyperparams`` is replaced,
    ``count`` of the optimizer in it is not. `jopt.tree.set` replaces all.

    Args:
      tree: Any tree.
      filtering: ``filtering(path, value)`` returns whether to replace a value.
      **kwargs: New values by name, with names as for `tree_get_all_with_path`.

    Raises:
      KeyError: Nothing has one of the names.

    >>> tree_set({"a": {"lr": 0.1}}, lr=0.2)
    {'a': {'lr': 0.2}}
    """
    for name in kwargs:
        if not _matches(tree, name, filtering):
            names = sorted({str(x) for x in _names(tree)})
            raise KeyError(f"there is no {name!r} to set.{suggestion(name, names)}")
    changed = {
        path: _refilled(path, node, kwargs, filtering)
        for path, node in _holders((), tree, kwargs)
    }
    return replaced(tree, (), changed)


def _refilled(path: Path, node: Any, new: dict[str, Any], filtering: Filter) -> Any:
    def is_chosen(path, value):
        return filtering is None or filtering(_optax_path(path), value)

    name = type(node).__name__
    if is_namedtuple(node) and name in new and is_chosen(path, node):
        return new[name]
    if not _has_one(node, new):
        return node
    children = []
    for step, child in named_children(node):
        below, name = (*path, step), getattr(step, "name", getattr(step, "key", None))
        if name in new and is_chosen(below, child):
            child = new[name]
        elif isinstance(child, dict | list | tuple):
            child = _refilled(below, child, new, filtering)
        children.append(child)
    treedef = jax.tree.structure(node, is_leaf=lambda x: x is not node)
    return treedef.unflatten(children)


def _optax_path(path: Path) -> Path:
    return tuple(
        NamedTupleKey(step.tuple_name, step.name)
        if isinstance(step, state_fields.NamedTupleKey)
        else step
        for step in path
    )


def _matches(tree: Any, key: Any, filtering: Filter) -> list[tuple[Path, Any]]:
    found = _found((), tree, key)
    if filtering is None:
        return found
    return [(path, x) for path, x in found if filtering(_optax_path(path), x)]


def _found(path: Path, node: Any, key: Any) -> list[tuple[Path, Any]]:
    """Return the matches, those of outer nodes before those inside them."""
    holders = list(_holders(path, node, (key,)))
    found = [_direct(*holder, key) for holder in holders]
    for path, holder in holders:
        for step, child in named_children(holder):
            found += _found((*path, step), child, key)
    return found


def _holders(path: Path, node: Any, keys: Iterable[Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the outermost nodes that have one of the names, or a child with it."""
    if _has_one(node, keys):
        yield path, node
        return
    for step, child in named_children(node):
        yield from _holders((*path, step), child, keys)


def _has_one(node: Any, keys: Iterable[Any]) -> bool:
    if is_namedtuple(node):
        return any(key in (*node._fields, type(node).__name__) for key in keys)
    return isinstance(node, dict) and any(key in node for key in keys)


def _direct(path: Path, node: Any, key: Any) -> tuple[Path, Any]:
    """Return the match in a node that has the name."""
    if isinstance(node, dict):
        return (*path, jax.tree_util.DictKey(key)), node[key]
    if type(node).__name__ == key:
        return path, node
    step = state_fields.NamedTupleKey(type(node).__name__, key)
    return (*path, step), getattr(node, key)


def _names(node: Any) -> Iterator[Any]:
    if is_namedtuple(node):
        yield type(node).__name__
        yield from node._fields
    elif isinstance(node, dict):
        yield from node
    for _, child in named_children(node):
        yield from _names(child)


@jax.tree_util.register_static
class Placeholder:
    """Stands for the parameters of an ``init``: a tree without leaves."""


def tree_map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """Apply ``f`` to everything that a state keeps in the form of the parameters.

    `jopt.tree.map_params` differs: it takes only arrays of a parameter's shape.

    Args:
      initable: A transformation, or an ``init`` function, of any library.
      f: Called as ``f(leaf, *rest_leaves)`` for the leaves of such trees.
      state: A state of ``initable``.
      *rest: Trees like the parameters.
      transform_non_params: A function for all other leaves; None keeps them.
      is_leaf: A predicate for further leaves, as in ``jax.tree.map``.

    Returns:
      A tree like ``state``.

    >>> import jax.numpy as jnp
    >>> def init(params):
    ...     return {"count": 0, "mu": params}
    >>> tree_map_params(init, lambda x: x + 1, init({"w": 1}))
    {'count': 0, 'mu': {'w': 2}}
    """
    init = getattr(initable, "init", initable)
    params = Placeholder()

    def is_params(x):
        return isinstance(x, Placeholder)

    def map_part(part, value):
        if is_params(part):
            return jax.tree.map(f, value, *rest, is_leaf=is_leaf)
        return value if transform_non_params is None else transform_non_params(value)

    return jax.tree.map(map_part, init(params), state, is_leaf=is_params)
