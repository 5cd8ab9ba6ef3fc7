"""Masks: which leaves a transformation acts on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jopt import tree


# A regular expression that is searched for in the leaf's path (``"kernel$"``), a
# function ``(path, leaf) -> bool``, a tree of bools (or a prefix of one), or a function
# ``params -> tree of bools``. None selects every leaf.
Mask = str | bool | Callable[..., Any] | Any


def select(mask: Mask, params: Any) -> list[bool]:
    """For each leaf of ``params``, whether the mask selects it.

    A None in the tree is never selected, and a mask need not say anything about it.

    Args:
      mask: See `Mask`.
      params: The tree that the mask is about; paths and shapes are what matters.

    Returns:
      One bool per leaf, Nones included, in the tree's order.

    Raises:
      ValueError: A regular expression that matches no leaf, or a mask tree that does
        not fit the parameters.
      TypeError: Something else than bools in a mask.

    >>> select("kernel", {"bias": 1.0, "kernel": 2.0})
    [False, True]
    """
    named = tree.leaves_with_names(params, none=True)
    if mask is None or isinstance(mask, bool):
        return [mask is not False and leaf is not None for _, leaf in named]
    if isinstance(mask, str):
        try:
            pattern = re.compile(mask)
        except re.error as error:
            raise ValueError(
                f"mask {mask!r} is not a regular expression: {error}"
            ) from None
        chosen = [pattern.search(path) is not None for path, _ in named]
        if named and not any(chosen):
            paths = ", ".join(repr(path) for path, _ in named[:8])
            raise ValueError(f"mask {mask!r} matches no leaf; the paths are {paths}")
        return [
            x and leaf is not None for x, (_, leaf) in zip(chosen, named, strict=True)
        ]
    if _is_function(mask):
        arity = _arity(mask)
        if arity == 2:
            return [x is not None and _bool(path, mask(path, x)) for path, x in named]
        if arity != 1:
            raise TypeError(
                "a mask is a function of (path, leaf) or of (params), got one that "
                f"takes {inspect.signature(mask)}"
            )
        mask = mask(params)
    return _by_path(mask, named)


def _is_function(mask: Any) -> bool:
    # Some models are callable trees, so callable() alone does not tell.
    leaves = jax.tree.leaves(mask)
    return callable(mask) and len(leaves) == 1 and leaves[0] is mask


def _arity(function: Callable[..., Any]) -> int:
    parameters = inspect.signature(function).parameters.values()
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _by_path(mask: Any, named: list[tuple[str, Any]]) -> list[bool]:
    """A mask tree is matched by paths, so its containers need not be the params'."""
    entries = {path: _bool(path, x) for path, x in tree.leaves_with_names(mask)}
    used = set()
    chosen = []
    for path, leaf in named:
        parts = path.split("/")
        prefixes = ("/".join(parts[:n]) for n in range(len(parts), -1, -1))
        found = next((prefix for prefix in prefixes if prefix in entries), None)
        if leaf is None:
            used |= {n for n in entries if f"{n}/".startswith(f"{path}/")} | {found}
            chosen.append(False)
            continue
        if found is None:
            raise ValueError(
                f"the mask says nothing about leaf {path!r}; it has {sorted(entries)}. "
                "Give True or False for every leaf, or for a subtree"
            )
        used.add(found)
        chosen.append(entries[found])
    if named and (unused := sorted(entries.keys() - used)):
        raise ValueError(f"the mask has entries for no leaf: {unused}")
    return chosen


def _bool(path: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    where = f"leaf {path!r}" if path else "the whole tree"
    raise TypeError(
        f"a mask is made of True and False, got {value!r} for {where}. To choose "
        "leaves by name, give a regular expression"
    )
