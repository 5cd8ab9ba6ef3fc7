"""Comparison of trees, with messages that name the leaf and show the numbers.

numpy does the comparison of two arrays; what is found and what is expected are told
apart in every message.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.tree import paths


def close(
    found: Any, expected: Any, rtol: float, atol: float = 0.0, what: str = "the result"
) -> None:
    """Raise AssertionError unless all numbers agree within the tolerances.

    Args:
      found: A tree of arrays.
      expected: A tree of the same structure.
      rtol: The tolerance relative to what is expected.
      atol: The absolute tolerance.
      what: What the tree is, in the message.

    >>> close({"w": 1.0}, {"w": 1.1}, rtol=1e-3, what="the update")
    Traceback (most recent call last):
        ...
    AssertionError: the update of leaf 'w' is 1.0 where 1.1 is expected \
(a relative difference of 0.0909, where 0.001 is allowed)
    """
    same_structure(found, expected, what)
    for name, a, b in _pairs(found, expected):
        leaf = f"{what}{_of_leaf(name)}"
        if a.shape != b.shape:
            raise AssertionError(
                f"{leaf} has the shape {a.shape} where {b.shape} is expected"
            )
        # NaN and infinity equal themselves only.
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        if not wrong.any():
            continue
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f" at {list(at)}" if at else ""
        allowed = f"a relative difference of {_relative(a[at], b[at])}, where"
        allowed = f" ({allowed} {rtol:.3g} is allowed)" if rtol else ""
        many = f"; {wrong.sum()} of {wrong.size} elements differ" * (wrong.size > 1)
        raise AssertionError(
            f"{leaf} is {a[at]}{where} where {b[at]} is expected{allowed}{many}"
        )


def equal(found: Any, expected: Any, what: str = "the result") -> None:
    """Raise AssertionError unless all numbers are the same; see `close`."""
    close(found, expected, rtol=0.0, what=what)


def finite(tree: Any, what: str) -> None:
    """Raise AssertionError if an element of a leaf is NaN or infinite."""
    for name, leaf in paths.leaves_with_names(tree):
        bad = _wide(leaf)[~np.isfinite(_wide(leaf))]
        if bad.size:
            raise AssertionError(f"{what}{_of_leaf(name)} has the value {bad.flat[0]}")


def same_structure(found: Any, expected: Any, what: str) -> None:
    """Raise AssertionError unless two trees have the same containers and leaves."""
    if jax.tree.structure(found) != jax.tree.structure(expected):
        difference = paths.difference("it", found, "what is expected", expected)
        raise AssertionError(f"{what} has another structure: {difference}")


def types(tree: Any) -> Any:
    """Shape, dtype and weak type of every leaf, as a tree to compare."""
    return jax.tree.map(
        lambda x: (jnp.shape(x), str(x.dtype), bool(getattr(x, "weak_type", False))),
        tree,
    )


def same_types(found: Any, expected: Any, what: str) -> None:
    """Raise AssertionError unless shapes, dtypes and weak types agree as well."""
    same_structure(found, expected, what)
    pairs = zip(
        paths.leaves_with_names(found), paths.leaves_with_names(expected), strict=True
    )
    for (name, a), (_, b) in pairs:
        for x in (a, b):
            if not hasattr(x, "dtype"):
                raise AssertionError(
                    f"{what}{_of_leaf(name)} is {x!r}, of the Python type "
                    f"{type(x).__name__}, where an array is expected"
                )
        if types(a) != types(b):
            raise AssertionError(
                f"{what}{_of_leaf(name)} is {_shown(a)} where {_shown(b)} is expected"
            )


def _shown(x: Any) -> str:
    weak = " with a weak type" if getattr(x, "weak_type", False) else ""
    return f"{x.dtype}{list(x.shape)}{weak}"


def _of_leaf(name: str) -> str:
    return f" of leaf {name!r}" if name else ""


def _pairs(found: Any, expected: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    leaves = paths.leaves_with_names(found), paths.leaves_with_names(expected)
    return [(n, _wide(a), _wide(b)) for (n, a), (_, b) in zip(*leaves, strict=True)]


def _wide(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    array = np.asarray(x)
    is_narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.itemsize < 4
    return array.astype(np.float32) if is_narrow else array


def _relative(a: Any, b: Any) -> str:
    size = abs(b)
    if not np.isfinite(a) or not np.isfinite(b) or not size:
        return "infinity"
    return f"{abs(float(abs(a - b))) / float(size):.3g}"
