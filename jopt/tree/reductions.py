"""Reductions of whole trees to one number, accumulated in float32 or wider.

``sum``, ``max`` and ``min`` hide Python's built-in functions here, as in optax.
A `RowSparse` leaf counts as its whole table.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.tree.dtypes import promoted, scalar_dtype, wide
from jopt.tree.paths import map_leaves
from jopt.tree.row_sparse import is_rows, touched


def size(tree: Any) -> int:
    """Return the number of elements of all leaves.

    Args:
      tree: Arrays, or objects with a shape; None counts as absent.

    Returns:
      A Python int.

    >>> size({"a": jnp.ones((2, 3)), "b": None})
    6
    """
    shapes = [np.shape(x) for x in jax.tree.leaves(tree, is_leaf=is_rows)]
    return functools.reduce(operator.add, map(math.prod, shapes), 0)


def sum(tree: Any, associative_reduction: bool = False) -> jax.Array:
    """Return the sum of all elements of all leaves.

    Args:
      tree: Arrays; None counts as absent.
      associative_reduction: Whether to add the sums of the leaves in a binary tree
        instead of one after the other.

    Returns:
      A scalar in the dtype of scalars or wider; an integer if all leaves are integers.

    >>> sum({"a": jnp.full(4, 30000.0, jnp.float16), "b": None})
    Array(120000., dtype=float32)
    """
    sums = [jnp.sum(_wide(touched(x))) for x in jax.tree.leaves(tree, is_leaf=is_rows)]
    if not associative_reduction:
        return _total(sums)
    while len(sums) > 1:
        sums = [_total(sums[i : i + 2]) for i in range(0, len(sums), 2)]
    return _total(sums)


def vdot(tree_x: Any, tree_y: Any) -> jax.Array:
    """Return the inner product of two trees, with the first one conjugated.

    Args:
      tree_x: Arrays; None counts as absent.
      tree_y: A tree with the structure and shapes of ``tree_x``.

    Returns:
      A scalar in the dtype of scalars or wider; an integer if all leaves are integers.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> vdot({"a": jnp.full(2, 300.0, jnp.float16)}, {"a": jnp.full(2, 300.0)})
    Array(180000., dtype=float32)
    """

    def product(x, y):
        x, y = _rows_of_both(x, y)
        dtype = promoted(_wide(x), _wide(y))
        x, y = (jnp.asarray(z).astype(dtype) for z in (x, y))
        return jnp.sum(jnp.conj(x) * y)

    return _total(jax.tree.leaves(map_leaves(product, tree_x=tree_x, tree_y=tree_y)))


def max(tree: Any) -> jax.Array:
    """Return the largest element of all leaves.

    Args:
      tree: Arrays; None counts as absent.

    Returns:
      A scalar in the dtype of scalars or wider; an integer if all leaves are integers;
      NaN if any element is NaN; minus infinity if there are no elements.

    >>> max({"a": jnp.arange(3.0), "b": jnp.ones(2, jnp.bfloat16)})
    Array(2., dtype=float32)
    """
    return _extreme(jnp.max, jnp.maximum, tree, -math.inf)


def min(tree: Any) -> jax.Array:
    """Return the smallest element of all leaves.

    Args:
      tree: Arrays; None counts as absent.

    Returns:
      A scalar in the dtype of scalars or wider; an integer if all leaves are integers;
      NaN if any element is NaN; infinity if there are no elements.

    >>> min({"a": jnp.arange(3.0), "b": jnp.ones(2, jnp.bfloat16)})
    Array(0., dtype=float32)
    """
    return _extreme(jnp.min, jnp.minimum, tree, math.inf)


def _rows_of_both(x: Any, y: Any) -> tuple[Any, Any]:
    """Return the elements of two leaves whose products can be nonzero."""
    if not is_rows(x):
        return _rows_of_both(y, x)[::-1] if is_rows(y) else (x, y)
    x = x.coalesced()
    y = x.gathered(y.todense() if is_rows(y) else y)
    return x.rows, jnp.where(x.is_row, y, 0)


def _with_a_zero(x: Any) -> Any:
    """Return a leaf; for a `RowSparse`, its rows and one zero for the missing rows."""
    if not is_rows(x):
        return x
    rows = touched(x)
    zeros = jnp.zeros((int(len(rows) < x.num_rows), *rows.shape[1:]), rows.dtype)
    return jnp.concatenate([rows, zeros])


def allclose(
    a: Any,
    b: Any,
    rtol: ArrayLike = 1e-05,
    atol: ArrayLike = 1e-08,
    equal_nan: bool = False,
) -> jax.Array:
    """Return whether all elements are close: ``|a - b| <= atol + rtol |b|``.

    Args:
      a: Arrays; None counts as absent.
      b: A tree with the structure and shapes of ``a``; the dtypes may differ.
      rtol: The relative tolerance.
      atol: The absolute tolerance.
      equal_nan: Whether NaN is close to NaN.

    Returns:
      One bool, as an array.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> allclose({"a": jnp.ones(2)}, {"a": jnp.ones(2, jnp.bfloat16)})
    Array(True, dtype=bool)
    """

    def close(x, y):
        dtype = wide(promoted(x, y))
        x, y = (jnp.asarray(z).astype(dtype) for z in (x, y))
        # Strict promotion would refuse tolerances of another dtype.
        with jax.numpy_dtype_promotion("standard"):
            return jnp.allclose(x, y, rtol, atol, equal_nan)

    results = jax.tree.leaves(map_leaves(close, a=a, b=b))
    return functools.reduce(operator.and_, results, jnp.asarray(True))


def _wide(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x.astype(np.promote_types(wide(x.dtype), scalar_dtype()))
    element = jax.ShapeDtypeStruct((), x.dtype)
    return x.astype(jax.eval_shape(jnp.sum, element).dtype)  # jnp.sum of int8 is int32


def _total(numbers: list[jax.Array]) -> jax.Array:
    if not numbers:
        return jnp.zeros((), scalar_dtype())
    dtype = promoted(*numbers)  # strict promotion refuses to add mixed dtypes
    return functools.reduce(operator.add, [x.astype(dtype) for x in numbers])


def _extreme(
    of_leaf: Callable[..., Any], of_two: Callable[..., Any], tree: Any, empty: float
) -> jax.Array:
    leaves = [_with_a_zero(x) for x in jax.tree.leaves(tree, is_leaf=is_rows)]
    extremes = [of_leaf(x) for x in map(_wide, leaves) if x.size]
    if not extremes:
        return jnp.asarray(empty, scalar_dtype())
    dtype = promoted(*extremes)
    return functools.reduce(of_two, [x.astype(dtype) for x in extremes])
