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
    AssertionError: the update: leaf 'w' is 1, expected 1.1 (a relative difference of \
0.0909, allowed is 0.001)
    """
    same_structure(found, expected, what)
    for name, a, b in _pairs(found, expected):
        leaf = _of_leaf(what, name)
        if a.shape != b.shape:
            raise AssertionError(f"{leaf} has the shape {a.shape}, expected {b.shape}")
        # NaN and infinity equal themselves only.
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        if not wrong.any():
            continue
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"{list(at)} " if at else ""
        size = _relative(a[at], b[at])
        by = (
            f" (a relative difference of {size}, allowed is {rtol:.3g})" if rtol else ""
        )
        many = f"; {wrong.sum()} of {wrong.size} elements differ" * (wrong.size > 1)
        raise AssertionError(
            f"{leaf} {where}is {_number(a[at])}, expected {_number(b[at])}{by}{many}"
        )


def equal(found: Any, expected: Any, what: str = "the result") -> None:
    """Raise AssertionError unless all numbers are the same; see `close`."""
    close(found, expected, rtol=0.0, what=what)


def finite(tree: Any, what: str) -> None:
    """Raise AssertionError if an element of a leaf is NaN or infinite."""
    for name, leaf in paths.leaves_with_names(tree):
        bad = _wide(leaf)[~np.isfinite(_wide(leaf))]
        if bad.size:
            raise AssertionError(f"{_of_leaf(what, name)} has the value {bad.flat[0]}")


def same_structure(found: Any, expected: Any, what: str) -> None:
    """Raise AssertionError unless two trees have the same containers and leaves."""
    if jax.tree.structure(found) != jax.tree.structure(expected):
        difference = paths.difference("it", found, "what is expected", expected)
        raise AssertionError(f"{what}: it has another structure: {difference}")


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
                    f"{_of_leaf(what, name)} is {x!r}, of the Python type "
                    f"{type(x).__name__}, expected an array"
                )
        if types(a) != types(b):
            raise AssertionError(
                f"{_of_leaf(what, name)} is {_shown(a)}, expected {_shown(b)}"
            )


def only_arrays(tree: Any, what: str) -> None:
    """Raise AssertionError if a leaf is a Python number, say."""
    for name, x in paths.leaves_with_names(tree):
        if not isinstance(x, jax.Array):
            raise AssertionError(
                f"{_of_leaf(what, name)} is {x!r}, of the Python type "
                f"{type(x).__name__}, expected an array: jnp.zeros((), jnp.int32), say"
            )


def _shown(x: Any) -> str:
    weak = " with a weak type" if getattr(x, "weak_type", False) else ""
    return f"{x.dtype}{list(x.shape)}{weak}"


def _of_leaf(what: str, name: str) -> str:
    return f"{what}: leaf {name!r}" if name else what


def _number(x: Any) -> str:
    return f"{x:.6g}" if jnp.issubdtype(x.dtype, jnp.inexact) else str(x)


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
