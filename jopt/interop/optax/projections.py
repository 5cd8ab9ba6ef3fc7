"""``optax.projections``: `jopt.projections`, with bounds that are broadcast."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jopt.interop.optax.tree import broadcast
from jopt.projections import balls, boxes, planes


__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]

projection_halfspace = planes.projection_halfspace
projection_hyperplane = planes.projection_hyperplane
projection_l1_ball = balls.projection_l1_ball
projection_l1_sphere = balls.projection_l1_sphere
projection_l2_ball = balls.projection_l2_ball
projection_l2_sphere = balls.projection_l2_sphere
projection_linf_ball = boxes.projection_linf_ball
projection_non_negative = boxes.projection_non_negative
projection_simplex = balls.projection_simplex
projection_vector = planes.projection_vector


def projection_box(tree: Any, lower: Any, upper: Any) -> Any:
    """Return the nearest tree with ``lower <= y <= upper``.

    Args:
      tree: Real arrays.
      lower, upper: The bounds: numbers, or trees like ``tree`` whose leaves are
        broadcast.

    >>> import jax.numpy as jnp
    >>> projection_box(jnp.ones((1, 2)), jnp.zeros(2), jnp.array([0.5, 2.0]))
    Array([[0.5, 1. ]], dtype=float32)
    """
    return boxes.projection_box(*broadcast(tree, lower, upper))


def projection_hypercube(tree: Any, scale: Any = 1) -> Any:
    """Return the nearest tree with ``0 <= y <= scale``.

    Args:
      tree: Real arrays.
      scale: The side length: a number, or a tree like ``tree``.

    >>> import jax.numpy as jnp
    >>> projection_hypercube(jnp.array([-1.0, 0.5, 2.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    if jax.tree_util.all_leaves([scale]) and np.shape(scale) == ():
        return boxes.projection_hypercube(tree, scale)
    zeros = jax.tree.map(lambda _: 0, scale)
    return projection_box(tree, zeros, scale)
