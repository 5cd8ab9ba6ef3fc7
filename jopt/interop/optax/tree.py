"""``optax.tree``: `jopt.tree` with what optax's users may pass, and its results.

Sums, norms and products are those of `jopt.tree`: in float32 or wider, and rounded
once. Beyond it, leaves at the same place may have different shapes, which are
broadcast, moments without updates are None, and arrays of NumPy stay arrays of NumPy.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from numbers import Number
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jopt.interop.optax import tree_states
from jopt.tree import arithmetic, averages, dtypes, like, norms, reductions
from jopt.tree.paths import is_none


__all__ = [
    "add",
    "add_scale",
    "allclose",
    "batch_shape",
    "bias_correction",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "dtype",
    "full_like",
    "get",
    "get_all_with_path",
    "map_params",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "random_like",
    "real",
    "scale",
    "set",
    "size",
    "split_key_like",
    "sub",
    "sum",
    "unwrap_random_key_data",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "vdot",
    "where",
    "zeros_like",
]

allclose = reductions.allclose
batch_shape = like.batch_shape
bias_correction = averages.bias_correction
cast = dtypes.cast
cast_like = dtypes.cast_like
clip = arithmetic.clip
conj = dtypes.conj
dtype = dtypes.dtype
full_like = like.full_like
get = tree_states.tree_get
get_all_with_path = tree_states.tree_get_all_with_path
map_params = tree_states.tree_map_params
max = reductions.max
min = reductions.min
norm = norms.norm
ones_like = like.ones_like
real = dtypes.real
set = tree_states.tree_set
size = reductions.size
split_key_like = like.split_key_like
sum = reductions.sum
unwrap_random_key_data = like.unwrap_random_key_data
vdot = reductions.vdot
zeros_like = like.zeros_like


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """Add two or more trees.

    >>> add({"a": jnp.ones(2)}, {"a": jnp.ones((1, 2))})
    {'a': Array([[2., 2.]], dtype=float32)}
    """
    return _map(arithmetic.add, operator.add, tree_x, tree_y, *other_trees)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """Subtract one tree from another."""
    return _map(arithmetic.sub, operator.sub, tree_x, tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """Multiply two trees element by element."""
    return _map(arithmetic.mul, operator.mul, tree_x, tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """Divide two trees element by element."""
    return _map(arithmetic.div, operator.truediv, tree_x, tree_y)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """Multiply a tree by a number, or by an array that fits all its leaves.

    >>> scale(jnp.arange(2.0), {"a": jnp.ones((1, 2))})
    {'a': Array([[0., 1.]], dtype=float32)}
    """
    if np.shape(scalar) == () and not _on_host(scalar, tree):
        return arithmetic.scale(scalar, tree)
    return mul(jax.tree.map(lambda _: scalar, tree), tree)


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """Compute ``tree_x + scalar * tree_y``.

    >>> add_scale(jnp.ones(2), 0.5, jnp.ones((1, 2)))
    Array([[1.5, 1.5]], dtype=float32)
    """
    if np.shape(scalar) == ():
        tree_x, tree_y = broadcast(tree_x, tree_y)
        return arithmetic.add_scale(tree_x, scalar, tree_y)
    return add(tree_x, scale(scalar, tree_y))


def where(condition: ArrayLike, tree_x: Any, tree_y: Any) -> Any:
    """Select from one tree where a condition is true and from another elsewhere.

    >>> where(jnp.array([[True, False]]), jnp.ones((1, 2)), 0.0)
    Array([[1., 0.]], dtype=float32)
    """
    return arithmetic.where(condition, *broadcast(tree_x, tree_y))


def update_moment(updates: Any, moments: Any, decay: ArrayLike, order: float) -> Any:
    """Compute ``decay * moment + (1 - decay) * update^order``; None without an update.

    Args:
      updates: The updates.
      moments: Their moments, a tree like ``updates``.
      decay: The decay, in [0, 1).
      order: The power of the updates.

    >>> update_moment(jnp.array([2.0]), jnp.zeros(1), 0.5, 2)
    Array([2.], dtype=float32)
    """

    def average(g, m, decay, order):
        m = _widened(m, g)
        return averages.update_moment(g, m, decay, order)

    return _moments(average, updates, moments, decay, order)


def update_moment_per_elem_norm(
    updates: Any, moments: Any, decay: ArrayLike, order: float
) -> Any:
    """Compute ``decay * moment + (1 - decay) * |update|^order``; or None, see above.

    Odd powers of real updates keep their sign.

    Args:
      updates: The updates.
      moments: Their moments, a tree like ``updates``.
      decay: The decay, in [0, 1).
      order: The power of the magnitudes.

    >>> update_moment_per_elem_norm(jnp.array([-2.0]), jnp.zeros(1), 0.5, 1)
    Array([-1.], dtype=float32)
    """

    def average(g, m, decay, order):
        if jnp.isrealobj(g):
            return update_moment(g, m, decay, order)
        m = _widened(m, jnp.abs(g))
        return averages.update_moment_per_elem_norm(g, m, decay, order)

    return _moments(average, updates, moments, decay, order)


def update_infinity_moment(
    updates: Any, moments: Any, decay: ArrayLike, eps: ArrayLike
) -> Any:
    """Compute ``max(decay * moment, |update| + eps)``; None without an update.

    Args:
      updates: The updates.
      moments: Their largest magnitudes, a tree like ``updates``.
      decay: The decay, in [0, 1).
      eps: Added to the magnitudes.

    >>> update_infinity_moment(jnp.array([-2.0]), jnp.ones(1), 0.9, 0.0)
    Array([2.], dtype=float32)
    """

    def largest(g, m, decay, eps):
        m = _widened(m, jnp.abs(g))
        return averages.update_infinity_moment(g, m, decay, eps)

    return _moments(largest, updates, moments, decay, eps)


def _moments(of_leaf: Callable[..., Any], updates: Any, moments: Any, *numbers: Any):
    def update(g, m):
        return None if g is None else of_leaf(g, m, *numbers)

    return jax.tree.map(update, updates, moments, is_leaf=is_none)


def _widened(moment: Any, other: Any) -> jax.Array:
    """Return a moment in the wider of two dtypes; those of jopt keep their own."""
    return jnp.asarray(moment).astype(dtypes.promoted(moment, other))


def random_like(
    rng_key: jax.Array,
    target_tree: Any,
    sampler: Callable[..., Any] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Any:
    """Return a tree of random numbers, drawn in the dtype of each leaf.

    >>> random_like(jax.random.key(0), {"a": jnp.zeros((2, 3))})["a"].shape
    (2, 3)
    """

    def draw(x, key):
        return like.drawn_like(key, x, sampler, dtype)

    return jax.tree.map(draw, target_tree, split_key_like(rng_key, target_tree))


def _map(ours: Callable[..., Any], plain: Callable[..., Any], *trees: Any) -> Any:
    """Apply our function, or a plain operator to numbers that are not in JAX yet."""
    if not _on_host(*trees):
        return ours(*broadcast(*trees))
    # NumPy's arrays stay NumPy's, in float64, and Python's numbers Python's.
    return jax.tree.map(lambda *row: functools.reduce(plain, row), *trees)


def _on_host(*trees: Any) -> bool:
    host = np.ndarray | np.generic | Number
    return all(isinstance(x, host) for x in jax.tree.leaves(trees))


def broadcast(*trees: Any) -> list[Any]:
    """Return the trees with leaves of one shape at every place."""
    structures = [jax.tree.structure(tree, is_leaf=is_none) for tree in trees]
    if any(structure != structures[0] for structure in structures):
        return list(trees)  # the function says where they differ

    def spread(x, *row):
        shapes = [np.shape(y) for y in row if y is not None]
        if x is None or len({*shapes, ()}) <= 2:
            return x
        return jnp.broadcast_to(x, np.broadcast_shapes(*shapes))

    return [jax.tree.map(spread, tree, *trees, is_leaf=is_none) for tree in trees]
