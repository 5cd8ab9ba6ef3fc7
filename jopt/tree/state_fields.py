"""Values in an optimizer's state, by the names of its fields.

The names are those of states: the fields of their NamedTuples, the keys of the dicts
that chains and partitions keep their states in, and the NamedTuples' own names. What is
inside of a slot is a parameter's name, so a parameter called ``count`` is not found.

A slot is what a state's field holds if there is no other state in it. A NamedTuple
there counts as a state if its name ends in ``State``, as those of jopt and optax do;
that tells the state of an inner transformation from parameters in a NamedTuple.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from jopt.tree.paths import children, difference, path_name
from jopt.values import arguments
from jopt.values.arguments import suggestion


Path = tuple[Any, ...]
Filter = Callable[[Path, Any], bool] | None


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The step of a path into a field: which one, and of which NamedTuple.

    >>> path_name((NamedTupleKey("ScaleByAdamState", "mu"),))
    'mu'
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return self.name


def get_all_with_path(
    tree: Any, key: Any, filtering: Filter = None, *, everywhere: bool = False
) -> list[tuple[Path, Any]]:
    """All values of a name in an optimizer's state, with their paths.

    Args:
      tree: A state, or a tree that contains one, such as a train state.
      key: The name of a field, of a member of a chain (if no field in it has the same),
        the name of a NamedTuple, or the end of a path: ``"scale_by_adam/count"``.
      filtering: ``filtering(path, value)`` says whether to take a value.
      everywhere: Whether to look inside of slots too, and into trees without states.

    Returns:
      Pairs of a path, whose steps are keys of ``jax.tree_util`` or `NamedTupleKey`, and
      a value. ``tree.path_name`` shows a path.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init({"mu": jnp.zeros(2)})
    >>> [(path, _)] = get_all_with_path(state, "mu")
    >>> path_name(path), path[-1].tuple_name
    ('scale_by_adam/mu', 'ScaleByAdamState')
    """
    found = [x for x in _entries(tree, everywhere) if _is_called(key, *x)]
    if not everywhere:
        found = [x for x in found if not _is_for_a_field(x[0], found)]
    return [x for x in found if filtering is None or filtering(*x)]


def get(
    tree: Any,
    key: Any,
    default: Any = None,
    filtering: Filter = None,
    *,
    everywhere: bool = False,
) -> Any:
    """The value of a name in an optimizer's state.

    Of several counts, those that are there for a schedule only give way: ``"count"`` of
    ``adam`` is that of ``scale_by_adam``, not that of its learning rate.

    Args:
      tree: A state, or a tree that contains one, such as a train state.
      key: See `get_all_with_path`.
      default: What to return if there is no such name.
      filtering: ``filtering(path, value)`` says whether to take a value.
      everywhere: Whether to look inside of slots too, and into trees without states.

    Returns:
      The value: an array, a slot, or a whole state.

    Raises:
      KeyError: There are several values of this name.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init({"count": jnp.zeros(2)})
    >>> get(state, "count"), get(state, "mu")
    (Array(0, dtype=int32), {'count': Array([0., 0.], dtype=float32)})
    """
    found = get_all_with_path(tree, key, filtering, everywhere=everywhere)
    if len(found) > 1:
        found = [x for x in found if not _is_for_a_schedule(tree, x[0])] or found
    if len(found) > 1:
        paths = [path_name(path) for path, _ in found]
        raise KeyError(
            f"{key!r} is ambiguous: there are {paths}. Give more of the path, as in "
            f"{paths[0]!r}, or filtering="
        )
    return found[0][1] if found else default


def set(tree: Any, filtering: Filter = None, /, **kwargs: Any) -> Any:
    """A state with all values of some names replaced.

    Args:
      tree: A state, or a tree that contains one.
      filtering: ``filtering(path, value)`` says whether to replace a value.
      **kwargs: New values by name; see `get_all_with_path` for names, of which those
        with a slash are given as ``**{"scale_by_adam/count": 0}``.

    Returns:
      A tree of the same structure, shapes and dtypes: numbers become arrays like those
      they replace. What is no number (a sharding, say) is put in as it is.

    Raises:
      KeyError: There is no such name.
      ValueError: A new value has another structure or shape.
      TypeError: A new value is no whole number where there was one.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init(jnp.zeros(2))
    >>> get(set(state, count=10.0), "count")
    Array(10, dtype=int32)
    """
    changed: dict[Path, Any] = {}
    for name, value in kwargs.items():
        found = get_all_with_path(tree, name, filtering)
        if not found:
            names = sorted({path_name(p[-1:]) for p, _ in _entries(tree, False) if p})
            raise KeyError(
                f"there is no {name!r} to set.{suggestion(name, names)} There "
                f"are: {names}"
            )
        for path, old in found:
            changed[path] = _like(path_name(path) or name, old, value)
    return _replaced(tree, (), changed)


def _entries(
    tree: Any, everywhere: bool, path: Path = (), slot: bool = False
) -> Iterator[tuple[Path, Any]]:
    """A tree, the states in it, and what those hold, with paths.

    ``slot`` says whether the tree is in a field of a state.
    """
    yield path, tree
    inside = slot or _is_namedtuple(tree)
    for step, child in _children(tree):
        # optax's inject_hyperparams keeps numbers by name in a field of this name.
        numbers = step == NamedTupleKey(type(tree).__name__, "hyperparams")
        if everywhere or numbers or _holds_state(child, inside):
            yield from _entries(child, everywhere, (*path, step), inside)
        else:
            yield (*path, step), child


def _is_called(key: Any, path: Path, value: Any) -> bool:
    if _is_namedtuple(value) and type(value).__name__ == key:
        return True
    step = path[-1] if path else None
    if key in (getattr(step, "key", step), getattr(step, "name", step)):
        return path != ()
    is_path = isinstance(key, str) and "/" in key
    return is_path and f"/{path_name(path)}".endswith(f"/{key}")


def _is_for_a_field(path: Path, found: list[tuple[Path, Any]]) -> bool:
    """Whether a chain's name for a state is that of a field in it, which is meant."""
    is_key = path != () and not isinstance(path[-1], NamedTupleKey)
    return is_key and any(
        len(other) > len(path) and other[: len(path)] == path for other, _ in found
    )


def _is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def _holds_state(x: Any, slot: bool) -> bool:
    if _is_namedtuple(x) and (not slot or type(x).__name__.endswith("State")):
        return True
    return any(_holds_state(child, slot) for _, child in _children(x))


def _children(node: Any) -> list[tuple[Any, Any]]:
    """The steps of a path from a node, and what they lead to; none from a leaf."""
    if not _is_namedtuple(node):
        return children(node)
    steps = [NamedTupleKey(type(node).__name__, field) for field in node._fields]
    return list(zip(steps, node, strict=True))


def _is_for_a_schedule(tree: Any, path: Path) -> bool:
    holder = tree
    for step in path[:-1]:
        holder = dict(_children(holder))[step]
    # The fields that a transformation has of its own, without those of its numbers.
    base = getattr(type(holder), "base", type(holder))
    own = (*getattr(base, "_fields", ()), *getattr(holder, "hyperparameters", ()))
    return _is_namedtuple(holder) and getattr(path[-1], "name", None) not in own


def _replaced(node: Any, path: Path, changed: Mapping[Path, Any]) -> Any:
    if path in changed:
        return changed[path]
    if not any(p[: len(path)] == path for p in changed):
        return node
    new = [_replaced(child, (*path, step), changed) for step, child in _children(node)]
    treedef = jax.tree.structure(node, is_leaf=lambda x: x is not node)
    return treedef.unflatten(new)


def _like(name: str, old: Any, new: Any) -> Any:
    """The new value with the types of the old one."""
    leaves, treedef = jax.tree.flatten(old)
    new_leaves, new_treedef = jax.tree.flatten(new)
    if new_treedef != treedef:
        where = difference("the state", old, "the new value", new)
        raise ValueError(f"{name}: the new value has another structure; {where}")
    pairs = zip(leaves, new_leaves, strict=True)
    return treedef.unflatten(_leaf_like(name, x, y) for x, y in pairs)


def _leaf_like(name: str, old: Any, new: Any) -> Any:
    is_number = isinstance(new, Real | complex) or hasattr(new, "dtype")
    if not is_number or not hasattr(old, "dtype"):
        return new
    shape = getattr(new, "shape", ())
    if shape not in ((), old.shape):
        raise ValueError(f"{name} has shape {old.shape}, the new value {shape}")
    if isinstance(new, jax.ShapeDtypeStruct):
        return new
    exact = not jnp.issubdtype(old.dtype, jnp.inexact)
    new = jnp.asarray(arguments.whole(name, new) if exact and _is_python(new) else new)
    loses = jnp.issubdtype(new.dtype, jnp.inexact) if exact else jnp.iscomplexobj(new)
    if loses and not jnp.iscomplexobj(old):
        raise TypeError(f"{name} is {old.dtype}, but the new value is {new.dtype}")
    return jnp.broadcast_to(new, old.shape).astype(old.dtype)


def _is_python(x: Any) -> bool:
    return not hasattr(x, "dtype")
