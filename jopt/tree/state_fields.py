"""Values in an optimizer's state, by the names of its fields.

Three kinds of names are searched: fields of the states' NamedTuples, keys of the dicts
in which chains and partitions keep states, and names of the NamedTuples. Names inside a
slot belong to parameters, so a parameter called ``count`` is not found.

A slot is the content of a state's field, if it contains no other state. A NamedTuple
there counts as a state if its name ends in ``State``, as in jopt and optax. This
distinguishes the state of an inner transformation from parameters in a NamedTuple.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from jopt.tree.paths import children, difference, path_name
from jopt.tree.variables import sees_arrays
from jopt.values import arguments
from jopt.values.arguments import suggestion


# The fields of a class of states that hold trees like the parameters. They are not
# searched for states, which takes long in a tree of many leaves.
_SLOTS: dict[type, frozenset[str]] = {}

Path = tuple[Any, ...]
Filter = Callable[[Path, Any], bool] | None


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The key of a path for a field of a NamedTuple: its name and the NamedTuple's.

    >>> path_name((NamedTupleKey("ScaleByAdamState", "mu"),))
    'mu'
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return self.name


def declare_slots(state_class: type, names: Iterable[str]) -> None:
    """Declare fields of a class of states that hold trees like the parameters.

    Args:
      state_class: The class. Fields that only some of its transformations declare may
        hold states.
      names: The names of the fields.
    """
    new = frozenset(names)
    _SLOTS[state_class] = _SLOTS.get(state_class, new) & new


def slots_of(state: Any) -> frozenset[str]:
    """Return the fields of a state that are known to hold trees like the parameters.

    Args:
      state: A state, or any NamedTuple.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init(jnp.zeros(2))["scale_by_adam"]
    >>> sorted(slots_of(state))
    ['mu', 'nu']
    """
    return _SLOTS.get(type(state), frozenset())


@sees_arrays()
def get_all_with_path(
    tree: Any, key: Any, filtering: Filter = None, *, everywhere: bool = False
) -> list[tuple[Path, Any]]:
    """Return all values with a name in an optimizer's state, with their paths.

    Args:
      tree: A state, or a tree that contains one, such as a train state.
      key: The name of a field, of a member of a chain (unless a field in it has the
        same name), or of a NamedTuple; or the end of a path: ``"scale_by_adam/count"``.
      filtering: ``filtering(path, value)`` returns whether to include a value.
      everywhere: Whether to search inside slots and in trees without states too.

    Returns:
      Pairs ``(path, value)``. A path consists of keys of ``jax.tree_util`` and
      `NamedTupleKey`; ``tree.path_name`` turns it into text.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init({"mu": jnp.zeros(2)})
    >>> [(path, _)] = get_all_with_path(state, "mu")
    >>> path_name(path), path[-1].tuple_name
    ('scale_by_adam/mu', 'ScaleByAdamState')
    """
    matches = [x for x in _entries(tree, everywhere) if _has_name(key, *x)]
    if not everywhere:
        matches = [x for x in matches if not _contains_match(x[0], matches)]
    return [x for x in matches if filtering is None or filtering(*x)]


@sees_arrays()
def get(
    tree: Any,
    key: Any,
    default: Any = None,
    filtering: Filter = None,
    *,
    everywhere: bool = False,
) -> Any:
    """Return the value with a name in an optimizer's state.

    If several counts match, those that serve only a schedule are ignored: ``"count"``
    of ``adam`` is the count of ``scale_by_adam``, not of its learning rate.

    Args:
      tree: A state, or a tree that contains one, such as a train state.
      key: A name as for `get_all_with_path`: of a field, a member of a chain or a
        NamedTuple, or the end of a path.
      default: The result if nothing has this name.
      filtering: ``filtering(path, value)`` returns whether to include a value.
      everywhere: Whether to search inside slots and in trees without states too.

    Returns:
      The value: an array, a slot, or a whole state.

    Raises:
      KeyError: Several values have this name.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init({"count": jnp.zeros(2)})
    >>> get(state, "count"), get(state, "mu")
    (Array(0, dtype=int32), {'count': Array([0., 0.], dtype=float32)})
    """
    matches = get_all_with_path(tree, key, filtering, everywhere=everywhere)
    if len(matches) > 1:
        matches = [x for x in matches if not _serves_schedule(tree, x[0])] or matches
    if len(matches) > 1:
        paths = [path_name(path) for path, _ in matches]
        raise KeyError(
            f"{key!r} is ambiguous: there are {paths}. Give more of the path, as in "
            f"{paths[0]!r}, or filtering="
        )
    return matches[0][1] if matches else default


@sees_arrays("tree")
def set(tree: Any, filtering: Filter = None, /, **kwargs: Any) -> Any:
    """Replace all values with some names in a state.

    Args:
      tree: A state, or a tree that contains one.
      filtering: ``filtering(path, value)`` returns whether to replace a value.
      **kwargs: New values by name, with names as for `get_all_with_path`. Pass a name
        with a slash as ``**{"scale_by_adam/count": 0}``.

    Returns:
      A tree of the same structure, shapes and dtypes: numbers become arrays like those
      they replace. A value that is not a number (a sharding, say) is inserted
      unchanged.

    Raises:
      KeyError: Nothing has this name.
      ValueError: A new value has another structure or shape.
      TypeError: A new value is not integral where the old one is, or complex where the
        old one is real.

    >>> import jopt
    >>> state = jopt.adam(1e-3).init(jnp.zeros(2))
    >>> get(set(state, count=10.0), "count")
    Array(10, dtype=int32)
    """
    changed: dict[Path, Any] = {}
    for name, value in kwargs.items():
        matches = get_all_with_path(tree, name, filtering)
        if not matches:
            names = sorted({path_name(p[-1:]) for p, _ in _entries(tree, False) if p})
            raise KeyError(
                f"there is no {name!r} to set.{suggestion(name, names)} There "
                f"are: {names}"
            )
        for path, old in matches:
            changed[path] = _convert(path_name(path) or name, old, value)
    return replaced(tree, (), changed)


def _entries(
    tree: Any, everywhere: bool, path: Path = (), slot: bool = False
) -> Iterator[tuple[Path, Any]]:
    """Yield a tree, the states in it, and the contents of their fields, with paths.

    ``slot`` is True if the tree is in a field of a state.
    """
    yield path, tree
    inside = slot or is_namedtuple(tree)
    slots = slots_of(tree)
    for step, child in named_children(tree):
        # optax's inject_hyperparams keeps numbers by name in a field of this name.
        numbers = step == NamedTupleKey(type(tree).__name__, "hyperparams")
        known = bool(slots) and step.name in slots
        if everywhere or numbers or (not known and _holds_state(child, inside)):
            yield from _entries(child, everywhere, (*path, step), inside)
        else:
            yield (*path, step), child


def _has_name(key: Any, path: Path, value: Any) -> bool:
    if is_namedtuple(value) and type(value).__name__ == key:
        return True
    step = path[-1] if path else None
    if key in (getattr(step, "key", step), getattr(step, "name", step)):
        return path != ()
    is_path = isinstance(key, str) and "/" in key
    return is_path and f"/{path_name(path)}".endswith(f"/{key}")


def _contains_match(path: Path, matches: list[tuple[Path, Any]]) -> bool:
    """Return whether a chain's member contains another match, which takes precedence.

    A name that belongs to both a member and a field in it means the field.
    """
    is_key = path != () and not isinstance(path[-1], NamedTupleKey)
    return is_key and any(
        len(other) > len(path) and other[: len(path)] == path for other, _ in matches
    )


def is_namedtuple(x: Any) -> bool:
    """Return whether ``x`` is a NamedTuple."""
    return isinstance(x, tuple) and hasattr(x, "_fields")


def _holds_state(x: Any, slot: bool) -> bool:
    if is_namedtuple(x) and (not slot or type(x).__name__.endswith("State")):
        return True
    slots = slots_of(x)
    return any(
        _holds_state(child, slot)
        for step, child in named_children(x)
        if not slots or step.name not in slots
    )


def named_children(node: Any) -> list[tuple[Any, Any]]:
    """Return ``(key, child)`` for every child of a node, fields by `NamedTupleKey`."""
    if not is_namedtuple(node):
        return children(node)
    steps = [NamedTupleKey(type(node).__name__, field) for field in node._fields]
    return list(zip(steps, node, strict=True))


def _serves_schedule(tree: Any, path: Path) -> bool:
    holder = tree
    for step in path[:-1]:
        holder = dict(named_children(holder))[step]
    # A field that is neither of the bare state nor a hyperparameter was added for a
    # schedule.
    base = getattr(type(holder), "base", type(holder))
    fields = (*getattr(base, "_fields", ()), *getattr(holder, "hyperparameters", ()))
    return is_namedtuple(holder) and getattr(path[-1], "name", None) not in fields


def replaced(node: Any, path: Path, changed: Mapping[Path, Any]) -> Any:
    """Return the node at ``path`` with other values at the paths of ``changed``."""
    if path in changed:
        return changed[path]
    if not any(p[: len(path)] == path for p in changed):
        return node
    new = [
        replaced(child, (*path, step), changed) for step, child in named_children(node)
    ]
    treedef = jax.tree.structure(node, is_leaf=lambda x: x is not node)
    return treedef.unflatten(new)


def _convert(name: str, old: Any, new: Any) -> Any:
    """Return the new value with the shapes and dtypes of the old one."""
    leaves, treedef = jax.tree.flatten(old)
    new_leaves, new_treedef = jax.tree.flatten(new)
    if new_treedef != treedef:
        where = difference("the state", old, "the new value", new)
        raise ValueError(f"{name}: the new value has another structure; {where}")
    pairs = zip(leaves, new_leaves, strict=True)
    return treedef.unflatten(_convert_leaf(name, x, y) for x, y in pairs)


def _convert_leaf(name: str, old: Any, new: Any) -> Any:
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
