"""Projections onto lines, planes and half-spaces."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.tree.arithmetic import scale
from jopt.tree.dtypes import promoted, rounded_once, scalar, wide
from jopt.tree.norms import norm
from jopt.tree.paths import map_leaves
from jopt.tree.reductions import vdot
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.registry import config_function


@config_function
def projection_vector(x: Any, a: Any) -> Any:
    """Return the nearest multiple of ``a``: ``<a, x> / <a, a> a``; zero if ``a`` is 0.

    Args:
      x: Arrays, which may be complex; None stays None.
      a: The direction, with the same structure and shapes.

    Returns:
      A tree like ``x`` with floating point or complex leaves.

    Raises:
      ValueError: The structures or the leaf shapes of the trees differ.

    >>> projection_vector(jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0]))
    Array([2., 2.], dtype=float32)
    """
    a, square, _ = _scaled(x, a)
    along = _quotient(vdot(a, x), square)

    def multiple(_, along, a):
        return along * a

    # x itself does not enter: it sets the dtype of the result.
    return map_leaves(
        lambda x, a: rounded_once(multiple, x, numbers=[along, a]), x=x, a=a
    )


@config_function
def projection_hyperplane(x: Any, a: Any, b: ArrayLike) -> Any:
    """Return the nearest tree with ``<a, y> = b``.

    Args:
      x: Arrays, which may be complex; None stays None.
      a: The normal of the plane, not zero, with the same structure and shapes.
      b: The offset, a real number.

    Returns:
      A tree like ``x`` with floating point or complex leaves.

    Raises:
      ValueError: The structures or the leaf shapes of the trees differ.
      TypeError: ``b`` is not one real number.

    >>> projection_hyperplane(jnp.zeros(2), jnp.array([1.0, 1.0]), 4.0)
    Array([2., 2.], dtype=float32)
    """
    a, square, offset = _scaled(x, a, b)
    return _moved(x, _quotient(offset, square, minus=vdot(a, x)), a)


@config_function
def projection_halfspace(x: Any, a: Any, b: ArrayLike) -> Any:
    """Return the nearest tree with ``<a, y> <= b``, or ``Re <a, y> <= b`` if complex.

    Args:
      x: Arrays, which may be complex; None stays None.
      a: The normal of the plane, not zero, with the same structure and shapes.
      b: The offset, a real number.

    Returns:
      A tree like ``x`` with floating point or complex leaves.

    Raises:
      ValueError: The structures or the leaf shapes of the trees differ.
      TypeError: ``b`` is not one real number.

    >>> projection_halfspace(jnp.array([3.0, 1.0]), jnp.array([1.0, 0.0]), 2.0)
    Array([2., 1.], dtype=float32)
    """
    a, square, offset = _scaled(x, a, b)
    excess = jax.nn.relu(jnp.real(vdot(a, x)) - offset)
    return _moved(x, -excess / square, a)


def _scaled(x: Any, a: Any, b: Any = 0) -> tuple[Any, jax.Array, jax.Array]:
    """Return ``a`` times a power of two, its squared norm, and ``b`` times that power.

    The power brings the largest element of ``a`` near 1, so that the square is in
    range and no digits are lost. For zero ``a`` the square is 1.
    """
    if not arguments.is_number(b):
        raise TypeError(f"b must be one real number, got b={abbreviated(b)}")

    def wide_like(x, a):
        a = jnp.asarray(a).astype(wide(promoted(a, 0.0)))
        return jnp.broadcast_to(a, np.shape(x))

    a = map_leaves(wide_like, x=x, a=a)
    _, exponent = jnp.frexp(jax.lax.stop_gradient(norm(a, ord=jnp.inf)))
    power = jnp.ldexp(scalar(1), -exponent)
    a = scale(power, a)
    square = norm(a, squared=True)
    return a, jnp.where(square > 0, square, 1), power * scalar(b)


def _quotient(x: jax.Array, square: jax.Array, minus: Any = 0) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):  # a real number and complex ones
        return (x - minus) / square


def _moved(x: Any, by: jax.Array, a: Any) -> Any:
    def shifted(x, by, a):
        return x + by * a

    return map_leaves(lambda x, a: rounded_once(shifted, x, numbers=[by, a]), x=x, a=a)
