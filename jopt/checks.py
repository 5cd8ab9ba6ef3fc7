"""What is checked, and the texts of the errors.

Numbers are checked when a transformation is built, trees when it is traced; neither
leaves anything in the compiled step. A message says what was given, where (the argument
or the path of the leaf), what is allowed, and what to do.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree


def _require(
    allowed: Callable[[Any], bool], wanted: str, arguments: dict[str, Any]
) -> None:
    """Check the plain numbers; what comes at run time cannot be checked here."""
    for name, value in arguments.items():
        value = getattr(value, "initial", value)  # a tunable's number
        # NaN fails every comparison, so it is refused too.
        if isinstance(value, Real) and not allowed(value):
            raise ValueError(f"{name} must be {wanted}, got {name}={value!r}")


def positive(**arguments: Any) -> None:
    """Raise unless every number is finite and > 0."""
    _require(lambda x: 0 < x < math.inf, "> 0 and finite", arguments)


def nonnegative(**arguments: Any) -> None:
    """Raise unless every number is finite and >= 0."""
    _require(lambda x: 0 <= x < math.inf, ">= 0 and finite", arguments)


def some_positive(**arguments: Any) -> None:
    """Raise if all are zero."""
    if all(isinstance(value, Real) and value == 0 for value in arguments.values()):
        shown = " and ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise ValueError(
            f"{shown} cannot all be zero: a zero gradient would be divided by zero"
        )


def nonpositive(**arguments: Any) -> None:
    """Raise unless every number is finite and <= 0."""
    _require(lambda x: -math.inf < x <= 0, "<= 0 and finite", arguments)


def decay_rate(**arguments: Any) -> None:
    """Raise unless every number can be the decay of a moving average: in [0, 1)."""
    _require(lambda x: 0 <= x < 1, "in [0, 1)", arguments)


def fraction(**arguments: Any) -> None:
    """Raise unless every number is in [0, 1]."""
    _require(lambda x: 0 <= x <= 1, "in [0, 1]", arguments)


def finite(**arguments: Any) -> None:
    """Raise unless every number is finite."""
    _require(math.isfinite, "a finite number", arguments)


def one_of(allowed: Collection[Any], **arguments: Any) -> None:
    """Raise unless every argument is one of the allowed words."""
    for name, value in arguments.items():
        if value not in allowed:
            options = ", ".join(map(repr, allowed))
            raise ValueError(f"{name} must be one of {options}, got {name}={value!r}")


def whole(name: str, value: Any) -> int:
    """The argument as an int, if it is a whole number."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or value != int(value):
        raise TypeError(f"{name} must be a whole number, got {name}={value!r}")
    return int(value)


def at_least(minimum: int, **arguments: int) -> None:
    """Raise unless every number is at least ``minimum``."""
    _require(lambda x: x >= minimum, f">= {minimum}", arguments)


def below(name: str, limit: int, **arguments: int) -> None:
    """Raise unless every whole number is >= 0 and less than the argument ``name``."""
    at_least(0, **arguments)
    for other, value in arguments.items():
        if value >= limit:
            raise ValueError(
                f"{other} must be < {name}, got {other}={value}, {name}={limit}"
            )


def increasing(name: str, values: Iterable[Any]) -> list[int]:
    """The values as ints, if they are whole numbers >= 0, each above the one before."""
    steps = [whole(f"{name}[{i}]", value) for i, value in enumerate(values)]
    if any(now <= before for before, now in pairwise([-1, *steps])):
        raise ValueError(f"{name} must be >= 0 and increase, got {name}={steps}")
    return steps


def flag(name: str, value: Any) -> bool:
    """The argument, if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {name}={value!r}")
    return value


def storage_dtype(name: str, value: Any) -> str:
    """The name of a floating point dtype."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating point dtype such as 'bfloat16', got "
            f"{name}={value!r}"
        )
    return dtype.name


def suggestion(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A did-you-mean for a word that is not known, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {close[0]!r}?" if close else ""


def leaves(
    found: Sequence[Any], whole: Any, name: str, real_only: Sequence[str] = ()
) -> None:
    """Raise unless every leaf (None is none) can be optimized.

    Args:
      found: The leaves of the tree.
      whole: The tree, to name a leaf by its path.
      name: What the tree is: ``params`` or ``updates``.
      real_only: The names of transformations that complex leaves are an error for.
    """
    for i, leaf in enumerate(found):
        problem = leaf is not None and _problem(leaf, real_only)
        if problem:
            path = tree.leaves_with_names(whole, none=None in found)[i][0]
            raise TypeError(f"{name} leaf {path!r} {problem}.")


def _problem(leaf: Any, real_only: Sequence[str]) -> str | None:
    dtype = (
        jnp.result_type(float) if type(leaf) is float else getattr(leaf, "dtype", None)
    )
    if dtype is None:
        return (
            f"is {abbreviated(leaf)}, not an array. Give arrays only; of an Equinox model "
            "that is eqx.filter(model, eqx.is_inexact_array)"
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        return (
            f"has dtype {dtype}, but only floating point and complex arrays can be "
            "optimized. Leave it out, or put None in its place"
        )
    if real_only and jnp.issubdtype(dtype, jnp.complexfloating):
        return (
            f"has dtype {dtype}, but {real_only[0]} is defined for real numbers only. "
            "Split the leaf into its real and imaginary part"
        )
    return None


def abbreviated(value: Any) -> str:
    """A short repr for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def aligned(
    updates: Any, leaves: Sequence[Any], treedef: Any, other: Any, name: str
) -> list[Any]:
    """The leaves of ``other`` in the order of the updates' leaves, which may be None."""
    try:
        found = treedef.flatten_up_to(other)
    except ValueError:
        raise ValueError(_structure_message(updates, other, name)) from None
    for i, (leaf, twin) in enumerate(zip(leaves, found, strict=True)):
        if leaf is None or twin is None:
            continue
        if not hasattr(twin, "shape") and not isinstance(twin, Real):
            raise ValueError(_structure_message(updates, other, name))
        if np.shape(leaf) != np.shape(twin):
            path = tree.leaves_with_names(updates, none=True)[i][0]
            raise ValueError(
                f"leaf {path!r}: updates have shape {np.shape(leaf)}, but {name} has "
                f"shape {np.shape(twin)}. Nothing is broadcast: take gradients with "
                "respect to these params, and init with them."
            )
    return found


def _structure_message(updates: Any, other: Any, name: str) -> str:
    ours = [path for path, _ in tree.leaves_with_names(updates, none=True)]
    theirs = [path for path, _ in tree.leaves_with_names(other, none=True)]
    missing = [path for path in ours if path not in theirs]
    extra = [path for path in theirs if path not in ours]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"only in the updates: {_some(missing)}")
        if extra:
            parts.append(f"only in {name}: {_some(extra)}")
        difference = "; ".join(parts)
    else:
        difference = (
            f"the same leaves in other containers: {jax.tree.structure(updates)} "
            f"and {jax.tree.structure(other)}"
        )
    return (
        f"updates and {name} have different structures. {difference}. Call "
        "update(updates, state, params) with the gradients of these params and a state "
        "that init made from them."
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
