"""Masks: which leaves a transformation acts on."""

from __future__ import annotations

import collections
import enum
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import jax
import numpy as np

from jopt import tree
from jopt.tree.paths import leaves_with_keys
from jopt.values.arguments import text_of


# A regular expression, searched for in the leaf's path (``"kernel$"``); a function
# ``(path, leaf) -> bool``; a tree of bools, or a prefix of one; or a function
# ``params -> tree of bools``. None selects every leaf.
Mask = str | bool | Callable[..., Any] | Any


def select(mask: Mask, params: Any) -> list[bool]:
    """Whether the mask selects each leaf of ``params``.

    A None in the tree is never selected, and a mask needs no entry for it.

    Args:
      mask: A mask in any of the forms of `Mask`.
      params: The tree that the mask is about; only paths and shapes matter.

    Returns:
      One bool per leaf, Nones included, in the tree's order.

    Raises:
      ValueError: A regular expression that matches no leaf, or a mask tree that does
        not fit the parameters.
      TypeError: The mask has entries that are not bools.

    >>> select("kernel", {"bias": 1.0, "kernel": 2.0})
    [False, True]
    """
    if mask is None or isinstance(mask, bool):
        leaves = jax.tree.leaves(params, is_leaf=tree.is_leaf)
        return [mask is not False and leaf is not None for leaf in leaves]
    named = tree.leaves_with_names(params, none=True)
    if isinstance(mask, str):
        pattern = expression(mask)
        chosen = [pattern.search(path) is not None for path, _ in named]
        if named and not any(chosen):
            paths = ", ".join(repr(path) for path, _ in named[:8])
            raise ValueError(f"mask {mask!r} matches no leaf; the paths are {paths}")
        return [
            x and leaf is not None for x, (_, leaf) in zip(chosen, named, strict=True)
        ]
    return [bool(x) for x in _values(mask, params, named, "mask", _bool)]


def multiples(mask: Mask, params: Any) -> list[float | None]:
    """The mask's number for each leaf: 1 for True, None where it is not selected.

    Args:
      mask: A mask that may have numbers in place of bools.
      params: The tree that the mask is about.

    Returns:
      One number per leaf, Nones included, in the tree's order.

    Raises:
      ValueError: As for `select`.
      TypeError: The mask has entries that are neither bools nor finite numbers.

    >>> multiples({"a": 0.5, "b": True, "c": False}, {"a": 0.0, "b": 0.0, "c": 0.0})
    [0.5, 1.0, None]
    """
    if mask is None or isinstance(mask, bool | str):
        return [1.0 if on else None for on in select(mask, params)]
    named = tree.leaves_with_names(params, none=True)
    return _values(mask, params, named, "mask", _multiple)


def only(whole: Any, chosen: list[bool]) -> Any:
    """The tree with None in place of the leaves that are not chosen.

    >>> only({"a": 1.0, "b": 2.0}, [False, True])
    {'a': None, 'b': 2.0}
    """
    leaves, treedef = jax.tree.flatten(whole, is_leaf=tree.is_leaf)
    if whole is None:
        return None
    return treedef.unflatten(
        x if on else None for x, on in zip(leaves, chosen, strict=True)
    )


def only_in(extra: Mapping[str, Any], whole: Any, chosen: list[bool]) -> dict[str, Any]:
    """The extra arguments of an update, those that are trees like ``whole`` masked too.

    Every number has the structure of a bare array. So beside a bare array, an argument
    is such a tree if it is an array of the same shape.

    >>> extra = {"value": 0.5, "grad": {"a": 1.0, "b": 2.0}}
    >>> only_in(extra, {"a": 3.0, "b": 4.0}, [False, True])
    {'value': 0.5, 'grad': {'a': None, 'b': 2.0}}
    """
    treedef = jax.tree.structure(whole, is_leaf=tree.is_leaf)
    bare = jax.tree_util.treedef_is_leaf(treedef)

    def is_like(x):
        if jax.tree.structure(x, is_leaf=tree.is_leaf) != treedef:
            return False
        return not bare or (np.ndim(x) > 0 and np.shape(x) == np.shape(whole))

    return {name: only(x, chosen) if is_like(x) else x for name, x in extra.items()}


def expression(mask: str) -> re.Pattern[str]:
    """Compile a mask that is a text.

    Raises:
      ValueError: It is not a regular expression.
    """
    try:
        return re.compile(mask)
    except re.error as error:
        raise ValueError(
            f"mask {mask!r} is not a regular expression: {error}. For a pattern with * "
            "for any text, use jopt.glob(…)"
        ) from None


def labels(param_labels: Callable[..., Any] | Any, params: Any) -> list[Any]:
    """The label of each leaf of ``params``; None for a None in the tree.

    Args:
      param_labels: A function ``(path, leaf) -> label``, a function ``params -> tree of
        labels``, or a tree of labels (or a prefix of one).
      params: The tree that the labels are about.

    Returns:
      One label per leaf, Nones included, in the tree's order.

    Raises:
      ValueError: A leaf without a label, or a label without a leaf.
      TypeError: A value cannot be a label.

    >>> labels(lambda path, leaf: path[0], {"bias": 1.0, "kernel": 2.0})
    ['b', 'k']
    """
    named = tree.leaves_with_names(params, none=True)
    return _values(param_labels, params, named, "tree of labels", _label)


def _values(
    source: Any, params: Any, named: list[tuple[str, Any]], what: str, check: Any
) -> list[Any]:
    """The value that a function or a tree has for each leaf; None for a None."""
    if _is_function(source):
        arity = _arity(source)
        if arity == 2:
            return [None if x is None else check(n, source(n, x)) for n, x in named]
        if arity != 1:
            raise TypeError(
                f"a {what} is a function of (path, leaf) or of (params), got one that "
                f"takes {inspect.signature(source)}"
            )
        source = source(params)
    return _matched(source, params, what, check)


def _is_function(mask: Any) -> bool:
    # Some models are callable trees, so callable() alone is not enough.
    leaves = jax.tree.leaves(mask)
    return callable(mask) and len(leaves) == 1 and leaves[0] is mask


def _arity(function: Callable[..., Any]) -> int:
    parameters = inspect.signature(function).parameters.values()
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _matched(values: Any, params: Any, what: str, check: Any) -> list[Any]:
    """Match the entries of a tree by their keys, so that its containers may differ.

    An entry that belongs to no leaf by its keys may name leaves by their path, as in
    ``{"dense/kernel": True}``.
    """
    entries = {keys: check("/".join(keys), x) for keys, x in leaves_with_keys(values)}
    leaves = leaves_with_keys(params, none=True)
    owners = [_longest(keys, entries) for keys, _ in leaves]
    by_path: dict[Any, list[Any]] = collections.defaultdict(list)
    for keys in entries.keys() - set(owners):
        by_path[tuple("/".join(keys).split("/"))].append(keys)
    used, matched, gaps = set(owners), [], set()
    for (keys, leaf), owner in zip(leaves, owners, strict=True):
        path = "/".join(keys)
        if owner is None and (beginning := _longest(path.split("/"), by_path)):
            if len(by_path[beginning]) > 1:
                raise ValueError(
                    f"the {what} has {len(by_path[beginning])} entries with the path "
                    f"{'/'.join(beginning)!r}; rename one of them"
                )
            (owner,) = by_path[beginning]
            used.add(owner)
        if leaf is None:
            gaps.add(path)
            matched.append(None)
            continue
        if owner is None:
            raise ValueError(
                f"the {what} says nothing about leaf {path!r}; it has "
                f"{sorted('/'.join(n) for n in entries)}. Give an entry for every "
                "leaf, or for a subtree"
            )
        matched.append(entries[owner])
    unused = sorted("/".join(n) for n in entries.keys() - used)
    # What is None here may be a subtree there.
    unused = [path for path in unused if not gaps.intersection(_beginnings(path))]
    if leaves and unused:
        raise ValueError(f"the {what} has entries that match no leaf: {unused}")
    return matched


def _beginnings(path: str) -> Iterator[str]:
    """The path of a leaf, and those of all subtrees that it is in."""
    steps = path.split("/")
    return ("/".join(steps[:n]) for n in range(1, len(steps) + 1))


def _longest(keys: Sequence[str], known: Any) -> tuple[str, ...] | None:
    """The longest beginning of the keys that is known."""
    prefixes = (tuple(keys[:n]) for n in range(len(keys), -1, -1))
    return next((prefix for prefix in prefixes if prefix in known), None)


def _bool(path: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _not_made_of("True and False", path, value)


def _not_made_of(what: str, path: str, value: Any) -> TypeError:
    where = f"leaf {path!r}" if path else "the whole tree"
    return TypeError(
        f"a mask consists of {what}, got {text_of(value)} for {where}. To choose "
        "leaves by name, pass a regular expression"
    )


def _multiple(path: str, value: Any) -> float | None:
    if isinstance(value, bool | np.bool_):
        return 1.0 if value else None
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    raise _not_made_of("True, False and finite numbers", path, value)


def _label(path: str, value: Any) -> str:
    label = label_text(value)
    if label is None:
        where = f"leaf {path!r}" if path else "the whole tree"
        raise TypeError(
            "a label is a string, a whole number, a bool or a member of an Enum, got "
            f"{text_of(value)} for {where}"
        )
    return label


def label_text(value: Any) -> str | None:
    """A label as it is written in the state, where every key is a string.

    >>> label_text("head"), label_text(2), label_text(True), label_text(0.5)
    ('head', '2', 'True', None)
    """
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return str(value)
    return value if isinstance(value, str) else None
