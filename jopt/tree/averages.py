"""Moving averages and counts of optimizer states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.tree.arithmetic import scale
from jopt.tree.dtypes import as_dtype, promoted, scalar, wide
from jopt.tree.norms import abs_sq
from jopt.tree.paths import map_leaves


def safe_increment(count: ArrayLike) -> jax.Array:
    """Return ``count + 1``, or the largest number of its dtype instead of an overflow.

    Args:
      count: A real number or an array of them.

    Raises:
      ValueError: ``count`` is a bool or complex.

    >>> int(safe_increment(jnp.int32(2**31 - 1)))
    2147483647
    """
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.integer):
        largest = jnp.iinfo(count.dtype).max
    elif jnp.issubdtype(count.dtype, jnp.floating):
        largest = jnp.finfo(count.dtype).max
    else:
        raise ValueError(f"count must be a real number, got one of {count.dtype}")
    # As an array of NumPy, because uint32's largest is no literal of JAX.
    below = count < np.asarray(largest, count.dtype)
    return count + below.astype(count.dtype)


def one_minus_power(decay: float | jax.Array, t: jax.Array) -> jax.Array:
    """Return ``1 - decay**t``, the total weight of the first ``t`` steps in an average.

    In float32, ``0.999**t`` is so close to 1 that the difference keeps only three
    digits; ``-expm1(t log decay)`` keeps all of them.

    Args:
      decay: The decay of the average, in [0, 1).
      t: The number of steps, from 1.

    >>> abs(float(one_minus_power(0.999, jnp.float32(1))) / 0.001 - 1) < 1e-6
    True
    """
    if isinstance(decay, float):
        log = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(decay)
    return -jnp.expm1(t * log)


def bias_correction(moment: Any, decay: float | jax.Array, count: ArrayLike) -> Any:
    """Return ``moment / (1 - decay**count)``, correcting an average begun at zero.

    Args:
      moment: Arrays.
      decay: The decay of the moving average, in [0, 1).
      count: The number of updates so far, from 1.

    Returns:
      A tree like ``moment``.

    >>> bias_correction({"a": jnp.array([0.5])}, 0.5, 1)
    {'a': Array([1.], dtype=float32)}
    """
    return scale(1 / one_minus_power(decay, scalar(jnp.asarray(count))), moment)


def update_moment(updates: Any, moments: Any, decay: ArrayLike, order: float) -> Any:
    """Compute ``decay * moment + (1 - decay) * update^order`` for every leaf.

    Args:
      updates: Arrays; where it is None, the moment does not change.
      moments: A tree of the same structure and shapes; each leaf keeps its dtype.
      decay: The decay of the moving average, in [0, 1).
      order: The power of the updates.

    Returns:
      A tree like ``moments``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> update_moment({"a": jnp.array([2.0])}, {"a": jnp.zeros(1)}, 0.5, 2)
    {'a': Array([2.], dtype=float32)}
    """
    return _average(lambda g: g**order, updates, moments, decay)


def update_moment_per_elem_norm(
    updates: Any, moments: Any, decay: ArrayLike, order: float
) -> Any:
    """Compute ``decay * moment + (1 - decay) * |update|^order``, real for complex too.

    Args:
      updates: Arrays; where it is None, the moment does not change.
      moments: A real tree of the same structure and shapes; each leaf keeps its dtype.
      decay: The decay of the moving average, in [0, 1).
      order: The power of the absolute values. (In optax, odd powers of real updates
        keep the sign.)

    Returns:
      A tree like ``moments``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> updates = {"a": jnp.array([3 + 4j])}
    >>> update_moment_per_elem_norm(updates, {"a": jnp.zeros(1)}, 0.5, 2)
    {'a': Array([12.5], dtype=float32)}
    """

    def power(g):
        return abs_sq(g) ** (order // 2) if order % 2 == 0 else jnp.abs(g) ** order

    return _average(power, updates, moments, decay)


def update_infinity_moment(
    updates: Any, moments: Any, decay: ArrayLike, eps: ArrayLike
) -> Any:
    """Compute ``max(decay * moment, |update| + eps)`` for every element.

    Args:
      updates: Arrays; where it is None, the moment does not change.
      moments: A real tree of the same structure and shapes; each leaf keeps its dtype.
      decay: The factor of the old maximum, in [0, 1).
      eps: Added to the absolute values.

    Returns:
      A tree like ``moments``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> update_infinity_moment({"a": jnp.array([-2.0])}, {"a": jnp.ones(1)}, 0.9, 0.0)
    {'a': Array([2.], dtype=float32)}
    """

    def largest(g, m, decay, eps):
        return jnp.maximum(jnp.abs(g) + eps, decay * m)

    return _map_wide(largest, updates, moments, [decay, eps])


def _average(power: Callable[..., Any], updates: Any, moments: Any, decay: Any) -> Any:
    # 1 - decay is taken here, because a Python float keeps digits that float32 loses.
    def average(g, m, decay, rest):
        return decay * m + rest * power(g)

    return _map_wide(average, updates, moments, [decay, 1 - decay])


def _map_wide(
    f: Callable[..., Any], updates: Any, moments: Any, numbers: list[Any]
) -> Any:
    """Apply ``f`` to the leaves of two trees and real numbers in a wide dtype.

    Each leaf may be complex.
    """

    def map_leaf(g, m):
        if g is None:
            return m
        # finfo gives the real dtype of a complex one: the numbers stay real.
        width = jnp.finfo(wide(promoted(g, m, 0.0))).dtype
        dtypes = [promoted(x, width) for x in (g, m)] + [width for _ in numbers]
        operands = [
            jnp.asarray(x).astype(dtype)
            for x, dtype in zip((g, m, *numbers), dtypes, strict=True)
        ]
        # Strict promotion forbids a real number times a complex array.
        with jax.numpy_dtype_promotion("standard"):
            return as_dtype(f(*operands), jnp.asarray(m).dtype)

    return map_leaves(map_leaf, gaps=True, updates=updates, moments=moments)
