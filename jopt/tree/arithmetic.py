"""Arithmetic on the leaves of trees.

Leaves at the same place may have different dtypes; the result has the promoted dtype.
It is computed in float32 or wider and rounded once. A number that scales a tree never
changes the dtype: a bfloat16 leaf stays bfloat16, and a float32 number is not rounded
to bfloat16 before it is used.
"""

from __future__ import annotations

import functools
from numbers import Number
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt.tree.dtypes import promoted, rounded_once
from jopt.tree.paths import map_leaves
from jopt.values.arguments import abbreviated


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """Add two or more trees.

    Args:
      tree_x: Arrays; None stays None.
      tree_y: A tree with the structure and shapes of ``tree_x``.
      *other_trees: More such trees.

    Returns:
      A tree like ``tree_x``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> add({"a": jnp.ones(2)}, {"a": jnp.ones(2)}, {"a": jnp.ones(2)})
    {'a': Array([3., 3.], dtype=float32)}
    """

    def total(*leaves):
        return functools.reduce(jnp.add, leaves)

    others = {f"other_trees[{i}]": tree for i, tree in enumerate(other_trees)}
    f = functools.partial(rounded_once, total, kind=0)  # for bools: True + True is 2
    return map_leaves(f, tree_x=tree_x, tree_y=tree_y, **others)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """Subtract one tree from another.

    Args:
      tree_x: Arrays; None stays None.
      tree_y: A tree with the structure and shapes of ``tree_x``.

    Returns:
      A tree like ``tree_x``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> sub({"a": jnp.ones(2)}, {"a": jnp.ones(2)})
    {'a': Array([0., 0.], dtype=float32)}
    """
    f = functools.partial(rounded_once, jnp.subtract)
    return map_leaves(f, tree_x=tree_x, tree_y=tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """Multiply two trees element by element.

    Args:
      tree_x: Arrays; None stays None.
      tree_y: A tree with the structure and shapes of ``tree_x``.

    Returns:
      A tree like ``tree_x``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> mul({"a": jnp.arange(3.0)}, {"a": 2.0})
    {'a': Array([0., 2., 4.], dtype=float32)}
    """
    f = functools.partial(rounded_once, jnp.multiply)
    return map_leaves(f, tree_x=tree_x, tree_y=tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """Divide two trees element by element.

    Args:
      tree_x: Arrays; None stays None.
      tree_y: A tree with the structure and shapes of ``tree_x``.

    Returns:
      A tree like ``tree_x``, with floating point or complex leaves.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> div({"a": jnp.array([1, 2])}, {"a": jnp.array([2, 2])})
    {'a': Array([0.5, 1. ], dtype=float32)}
    """
    f = functools.partial(rounded_once, jnp.divide, kind=0.0)
    return map_leaves(f, tree_x=tree_x, tree_y=tree_y)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """Multiply a tree by a number.

    Args:
      scalar: A number of any dtype.
      tree: Arrays; None stays None.

    Returns:
      A tree like ``tree``, with its dtypes.

    Raises:
      TypeError: ``scalar`` is not one number.

    >>> scale(jnp.float32(0.5), {"a": jnp.ones(2, jnp.bfloat16)})
    {'a': Array([0.5, 0.5], dtype=bfloat16)}
    """
    numbers = [_number("scalar", scalar)]
    return map_leaves(
        lambda x: rounded_once(jnp.multiply, x, numbers=numbers), tree=tree
    )


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """Compute ``tree_x + scalar * tree_y``.

    Args:
      tree_x: Arrays; where it is None, the result is None.
      scalar: A number of any dtype.
      tree_y: A tree with the structure and shapes of ``tree_x``.

    Returns:
      A tree like ``tree_x``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.
      TypeError: ``scalar`` is not one number.

    >>> add_scale({"a": jnp.ones(2)}, 0.5, {"a": jnp.ones(2)})
    {'a': Array([1.5, 1.5], dtype=float32)}
    """
    numbers = [_number("scalar", scalar)]

    def scaled_sum(x, y, s):
        return x + s * y

    def f(x, y):
        return None if x is None else rounded_once(scaled_sum, x, y, numbers=numbers)

    return map_leaves(f, gaps=True, tree_x=tree_x, tree_y=tree_y)


def _number(name: str, value: Any) -> Any:
    is_number = isinstance(value, Number) or hasattr(value, "dtype")
    if is_number and getattr(value, "shape", ()) == ():
        return value
    raise TypeError(f"{name} must be one number, got {abbreviated(value)}")


def clip(
    tree: Any,
    min_value: ArrayLike | None = None,
    max_value: ArrayLike | None = None,
) -> Any:
    """Clip every element to ``[min_value, max_value]``.

    Args:
      tree: Real arrays; None stays None.
      min_value: The lower bound; None means no bound.
      max_value: The upper bound; None means no bound.

    Returns:
      A tree like ``tree``, with its dtypes.

    >>> clip({"a": jnp.arange(3.0)}, 0.5, 1.5)
    {'a': Array([0.5, 1. , 1.5], dtype=float32)}
    """
    bounds = {"min": min_value, "max": max_value}
    bounds = {name: x for name, x in bounds.items() if x is not None}

    def clip_leaf(x, *numbers):
        return jnp.clip(x, **dict(zip(bounds, numbers, strict=True)))

    return map_leaves(
        lambda x: rounded_once(clip_leaf, x, numbers=list(bounds.values())), tree=tree
    )


def where(condition: ArrayLike, tree_x: Any, tree_y: Any) -> Any:
    """Select from one tree where a condition is true and from another elsewhere.

    Args:
      condition: One bool, or an array with the shape of every leaf. Where it is true,
        the result is ``tree_x``.
      tree_x: Arrays; None stays None.
      tree_y: A tree with the structure and shapes of ``tree_x``.

    Returns:
      A tree like ``tree_x``.

    Raises:
      ValueError: The trees differ in structure, or their leaves in shape.

    >>> where(True, {"a": jnp.ones(2)}, {"a": jnp.zeros(2)})
    {'a': Array([1., 1.], dtype=float32)}
    """

    def choose(x, y):
        dtype = promoted(x, y)
        x, y = jnp.asarray(x).astype(dtype), jnp.asarray(y).astype(dtype)
        return jnp.where(condition, x, y)

    return map_leaves(choose, tree_x=tree_x, tree_y=tree_y)
