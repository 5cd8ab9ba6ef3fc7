"""Elementwise projections: onto boxes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.tree.dtypes import rounded_once
from jopt.tree.paths import leaves_with_names, map_leaves
from jopt.values import arguments
from jopt.values.registry import config_function


@config_function
def projection_non_negative(tree: Any) -> Any:
    """Return the nearest tree without negative elements: ``max(x, 0)``.

    Args:
      tree: Real arrays; None stays None.

    Returns:
      A tree like ``tree``.

    Raises:
      TypeError: A leaf is complex.

    >>> projection_non_negative({"a": jnp.array([-1.0, 2.0])})
    {'a': Array([0., 2.], dtype=float32)}
    """
    real_only(tree)
    return map_leaves(lambda x: rounded_once(jax.nn.relu, x), tree=tree)


@config_function
def projection_box(tree: Any, lower: Any, upper: Any) -> Any:
    """Return the nearest tree with ``lower <= y <= upper``.

    Args:
      tree: Real arrays; None stays None.
      lower: The lower bounds: a number, or a tree like ``tree`` of arrays or numbers.
      upper: The upper bounds, in the same form.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: The structure or a leaf shape of a bound does not match ``tree``.
      TypeError: A leaf is complex.

    >>> projection_box({"a": jnp.arange(3.0)}, 0.5, {"a": 1.5})
    {'a': Array([0.5, 1. , 1.5], dtype=float32)}
    """
    real_only(tree)
    return map_leaves(
        lambda x, low, high: rounded_once(jnp.clip, x, numbers=[low, high]),
        tree=tree,
        lower=_for_each_leaf(lower, tree),
        upper=_for_each_leaf(upper, tree),
    )


@config_function
def projection_hypercube(tree: Any, scale: Any = 1) -> Any:
    """Return the nearest tree with ``0 <= y <= scale``.

    Args:
      tree: Real arrays; None stays None.
      scale: The side length, >= 0: a number, or a tree like ``tree``.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: ``scale`` is negative or does not match ``tree``.
      TypeError: A leaf is complex.

    >>> projection_hypercube({"a": jnp.array([-1.0, 0.5, 2.0])})
    {'a': Array([0. , 0.5, 1. ], dtype=float32)}
    """
    if jax.tree_util.all_leaves([scale]) and np.shape(scale) == ():
        arguments.nonnegative(scale=scale)
    return projection_box(tree, 0, scale)


@config_function
def projection_linf_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """Return the nearest tree with ``|y_i| <= scale`` for every element.

    Args:
      tree: Arrays, which may be complex; None stays None.
      scale: The radius, >= 0.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: ``scale`` is negative.

    >>> projection_linf_ball({"a": jnp.array([-3.0, 0.5])})
    {'a': Array([-1. ,  0.5], dtype=float32)}
    """
    arguments.nonnegative(scale=scale)

    def shortened(x, radius):
        return jnp.where(jnp.abs(x) <= jnp.real(radius), x, jnp.sign(x) * radius)

    return map_leaves(lambda x: rounded_once(shortened, x, numbers=[scale]), tree=tree)


def _for_each_leaf(bound: Any, tree: Any) -> Any:
    is_number = jax.tree_util.all_leaves([bound]) and np.shape(bound) == ()
    if is_number and not jax.tree_util.all_leaves([tree]):
        return jax.tree.map(lambda _: bound, tree)
    return bound


def real_only(tree: Any) -> None:
    """Raise if a leaf is complex."""
    for path, x in leaves_with_names(tree):
        if jnp.iscomplexobj(x):
            raise TypeError(
                f"leaf {path!r} has dtype {jnp.result_type(x)}, but this projection "
                "needs real numbers"
            )
