"""Sums over all parameters, from which optimizers estimate their step size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.transformation import Params
from jopt.tree import abs_sq, scalar


def each(
    f: Callable[..., jax.Array], *trees: Any, **numbers: float | jax.Array
) -> list[jax.Array | None]:
    """Apply ``f(x, y, …)`` to the leaves of trees of one structure.

    Args:
      f: A function of one leaf of each tree, in float32 or wider, and the numbers. It
        is traced once per shape if every call passes the same function object.
      *trees: The trees. Where any has None, the result is None.
      **numbers: Passed to ``f`` for every leaf.

    Returns:
      The results in the order of the leaves.

    >>> each(inner, {"a": jnp.full(2, 3.0), "b": None}, {"a": jnp.ones(2), "b": None})
    [Array([3., 3.], dtype=float32), None]
    """
    leaves = [jax.tree.leaves(x, is_leaf=lambda x: x is None) for x in trees]
    return [
        None if any(x is None for x in row) else _leaf(f, row, numbers)
        for row in zip(*leaves, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def _leaf(
    f: Callable[..., jax.Array], row: tuple[Any, ...], numbers: dict[str, Any]
) -> jax.Array:
    dtypes = [jnp.finfo(tree.compute_dtype(x.dtype)).dtype for x in row]
    wide = max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
    loaded = [x.astype(np.promote_types(x.dtype, wide)) for x in row]
    widened = {name: jnp.asarray(x, wide) for name, x in numbers.items()}
    # Real numbers multiply complex leaves, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        return f(*loaded, **widened)


def total(f: Callable[..., jax.Array], *trees: Any, **numbers: Any) -> jax.Array:
    """Sum all elements of the arrays that `each` returns.

    >>> float(total(inner, {"a": jnp.full(2, 3.0)}, {"a": jnp.ones(2)}))
    6.0
    """
    arrays = (x for x in each(f, *trees, **numbers) if x is not None)
    return sum((scalar(jnp.sum(x)) for x in arrays), start=scalar(0))


def squared_distance(params: Params, init_params: Params) -> jax.Array:
    """Return ``|x - x_0|^2``."""
    return total(_squared_difference, params, init_params)


def distance(params: Params, init_params: Params) -> jax.Array:
    """Return ``|x - x_0|``."""
    return root(squared_distance(params, init_params))


def root(x: jax.Array) -> jax.Array:
    """Square root whose derivative at zero, where distances start, is zero."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _squared_difference(x: jax.Array, y: jax.Array) -> jax.Array:
    return abs_sq(x - y)


def inner(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the real part of ``conj(x) y``, the elements of an inner product."""
    return jnp.real(jnp.conj(x) * y)
