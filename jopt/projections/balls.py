"""Projections onto balls and spheres, and onto the simplex, a part of the l1 sphere.

The projection onto the simplex subtracts one threshold from all elements and sets
negative results to zero; the sorted elements determine the threshold. The projection
onto the l1 ball does the same to the absolute values.

Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions",
2008.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.projections.boxes import real_only
from jopt.tree.dtypes import promoted, rounded_once, wide
from jopt.tree.norms import norm
from jopt.tree.paths import map_leaves
from jopt.tree.reductions import size
from jopt.values import arguments
from jopt.values.registry import config_function


@config_function
def projection_l2_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """Return the nearest tree with ``||y||_2 <= scale``.

    Args:
      tree: Arrays, which may be complex; None stays None.
      scale: The radius, >= 0.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: ``scale`` is negative.

    >>> projection_l2_ball({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, scale=0.5)
    {'a': Array([0.3], dtype=float32), 'b': Array([0.4], dtype=float32)}
    """
    arguments.nonnegative(scale=scale)
    length = norm(tree)
    outside = length > jnp.asarray(scale, length.dtype)
    length = jnp.where(outside, length, 1)

    def shortened(x, length, radius):
        # Division first: the ratio radius / length may underflow.
        return jnp.where(outside, x / length * radius, x)

    numbers = [length, scale]
    return map_leaves(lambda x: rounded_once(shortened, x, numbers=numbers), tree=tree)


@config_function
def projection_l2_sphere(tree: Any, scale: ArrayLike = 1) -> Any:
    """Return the nearest tree with ``||y||_2 = scale``.

    Args:
      tree: Arrays, which may be complex; None stays None. If all elements are zero,
        every tree on the sphere is equally near; the result then has equal elements.
      scale: The radius, >= 0.

    Returns:
      A tree like ``tree`` with floating point or complex leaves.

    Raises:
      ValueError: ``scale`` is negative.

    >>> projection_l2_sphere({"a": jnp.array([0.3, 0.4])}, scale=5)
    {'a': Array([3., 4.], dtype=float32)}
    """
    arguments.nonnegative(scale=scale)
    length, equal = norm(tree), np.sqrt(size(tree))
    zero = length == 0
    numbers = [jnp.where(zero, 1, length), scale, float(equal)]

    def on_sphere(x, length, radius, equal):
        return jnp.where(zero, 1 / equal, x / length) * radius

    return map_leaves(lambda x: rounded_once(on_sphere, x, numbers=numbers), tree=tree)


@config_function
def projection_simplex(tree: Any, scale: ArrayLike = 1) -> Any:
    """Return the nearest tree with nonnegative elements whose sum is ``scale``.

    Args:
      tree: Real arrays; None stays None.
      scale: The sum of all elements, > 0.

    Returns:
      A tree like ``tree`` with floating point leaves.

    Raises:
      ValueError: ``scale`` is not positive.
      TypeError: A leaf is complex.

    >>> projection_simplex({"a": jnp.array([2.5, 3.25]), "b": 0.5})
    {'a': Array([0.125, 0.875], dtype=float32), 'b': Array(0., dtype=float32)}
    """
    arguments.positive(scale=scale)
    real_only(tree)
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten(
        y.astype(promoted(x, 0.0))
        for x, y in zip(leaves, _on_simplex(leaves, scale), strict=True)
    )


@config_function
def projection_l1_sphere(tree: Any, scale: ArrayLike = 1) -> Any:
    """Return the nearest tree with ``||y||_1 = scale``.

    Args:
      tree: Arrays, which may be complex; None stays None. If a zero element becomes
        nonzero, either sign is equally near; the result is positive.
      scale: The radius, > 0.

    Returns:
      A tree like ``tree`` with floating point or complex leaves.

    Raises:
      ValueError: ``scale`` is not positive.

    >>> projection_l1_sphere({"a": jnp.array([0.0, -0.5])})
    {'a': Array([ 0.25, -0.75], dtype=float32)}
    """
    arguments.positive(scale=scale)
    leaves, treedef = jax.tree.flatten(tree)
    lengths = _on_simplex([jnp.abs(x) for x in leaves], scale)

    def directed(x, length):
        return jnp.where(x == 0, 1, jnp.sign(x)) * length

    return treedef.unflatten(
        rounded_once(directed, x, numbers=[length])
        for x, length in zip(leaves, lengths, strict=True)
    )


@config_function
def projection_l1_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """Return the nearest tree with ``||y||_1 <= scale``.

    Args:
      tree: Arrays, which may be complex; None stays None.
      scale: The radius, > 0.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: ``scale`` is not positive.

    >>> projection_l1_ball({"a": jnp.array([2.5, -3.25]), "b": 0.5})
    {'a': Array([ 0.125, -0.875], dtype=float32), 'b': Array(0., dtype=float32)}
    """
    length = norm(tree, ord=1)
    inside = length <= jnp.asarray(scale, length.dtype)

    def choose(x, y):
        return jnp.where(inside, x, y)

    on_sphere = projection_l1_sphere(tree, scale)
    return map_leaves(
        lambda x, y: rounded_once(choose, x, y), tree=tree, on_sphere=on_sphere
    )


def _on_simplex(leaves: list[Any], scale: ArrayLike) -> list[jax.Array]:
    """Return the projection ``max(x - threshold, 0)`` of real leaves, unrounded."""
    if not leaves or not size(leaves):
        return [jnp.asarray(x) for x in leaves]
    dtype = wide(promoted(*leaves, 0.0))
    scale = jnp.asarray(scale).astype(dtype)
    arrays = [jnp.asarray(x).astype(dtype) for x in leaves]
    # Only elements within scale of the largest can stay positive. With the largest
    # shifted to zero these are all small, so sums of them lose no digits.
    flat = jax.lax.stop_gradient(jnp.concatenate([jnp.ravel(x) for x in arrays]))
    largest = jnp.max(flat)
    arrays = [x - largest for x in arrays]
    flat = jnp.clip((flat - largest) / jax.lax.stop_gradient(scale), -1, 0)

    falling = -jnp.sort(-flat)
    sums, count = jnp.cumsum(falling), jnp.arange(1, flat.size + 1).astype(dtype)
    last = jnp.count_nonzero(1 + count * falling > sums) - 1
    threshold = (sums[last] - 1) / count[last]

    # Sorting has selected the elements that stay positive. Their threshold is computed
    # again from them alone: with all its digits, and differentiable.
    # `not <=` instead of `>` keeps a NaN among them.
    masks = [~(jax.lax.stop_gradient(x / scale) <= threshold) for x in arrays]
    pairs = list(zip(arrays, masks, strict=True))
    total = sum(jnp.sum(jnp.where(on, x, 0)) for x, on in pairs)
    number = sum(jnp.count_nonzero(on) for on in masks)
    threshold = (total - scale) / jnp.asarray(number, dtype)
    return [jnp.where(on, jax.nn.relu(x - threshold), 0) for x, on in pairs]
