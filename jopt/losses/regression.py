"""Losses of numbers and vectors, of the error ``e = predictions - targets``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import (
    Axis,
    aligned,
    floating,
    mask,
    real,
    same_shape,
    scalars,
)
from jopt.tree.dtypes import rounded_once
from jopt.values import arguments


def squared_error(
    predictions: ArrayLike, targets: ArrayLike | None = None
) -> jax.Array:
    """Return ``e^2`` for every element.

    Args:
      predictions: Floating point numbers of any shape.
      targets: Numbers of the same shape; None means zeros.

    Returns:
      An array of the shape of ``predictions``.

    Raises:
      ValueError: The shapes differ.
      TypeError: The predictions are no floating point numbers.

    >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
    Array([0., 4.], dtype=float32)
    """
    return _of_error(jnp.square, predictions, targets, equal=True)


def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Return ``e^2 / 2`` for every element.

    With this factor the gradient is the error.

    Args:
      predictions: Floating point numbers of any shape.
      targets: Numbers of the same shape; None means zeros.

    Returns:
      An array of the shape of ``predictions``.

    Raises:
      ValueError: The shapes differ.
      TypeError: The predictions are no floating point numbers.

    >>> l2_loss(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
    Array([0., 2.], dtype=float32)
    """
    return _of_error(lambda e: 0.5 * jnp.square(e), predictions, targets, equal=True)


def huber_loss(
    predictions: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    delta: ArrayLike = 1.0,
) -> jax.Array:
    """Return a loss that is quadratic for small errors and linear for large ones.

        e^2 / 2                      if |e| <= delta
        delta * (|e| - delta / 2)    otherwise

    Its gradient is the error, clipped to ``[-delta, delta]``.

    Args:
      predictions: Floating point numbers of any shape.
      targets: Numbers that broadcast with the predictions; None means zeros.
      delta: The error from which the loss is linear, >= 0.

    Returns:
      One number per element.

    Raises:
      ValueError: The shapes do not fit, or ``delta`` is negative.
      TypeError: The predictions are no floating point numbers.

    Huber, "Robust estimation of a location parameter", 1964.

    >>> huber_loss(jnp.array([0.5, 3.0]), delta=1.0)
    Array([0.125, 2.5  ], dtype=float32)
    """
    arguments.nonnegative(**scalars(delta=delta))

    def huber(e, delta):
        size = jnp.abs(e)
        inside = jnp.minimum(size, delta)
        return 0.5 * jnp.square(inside) + delta * (size - inside)

    return _of_error(huber, predictions, targets, delta)


def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Return ``log(cosh(e))`` for every element.

    It is about ``e^2 / 2`` for small errors and ``|e| - log(2)`` for large ones, smooth
    in between, and its gradient is ``tanh(e)``.

    Args:
      predictions: Floating point numbers of any shape.
      targets: Numbers that broadcast with the predictions; None means zeros.

    Returns:
      One number per element.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: The predictions are no floating point numbers.

    Chen et al., "Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder", 2018.

    >>> log_cosh(jnp.array([0.0, 1000.0])).round(1)
    Array([  0. , 999.3], dtype=float32)
    """

    def log_of_cosh(e):
        size = jnp.abs(e)
        large = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
        # cosh(e) = 1 + 2 sinh(e / 2)^2: no digits cancel where the error is small.
        small = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.clip(e, -1, 1))))
        return jnp.where(size < 1, small, large)

    return _of_error(log_of_cosh, predictions, targets)


def _of_error(
    loss: Callable[..., Any],
    predictions: Any,
    targets: Any,
    *numbers: Any,
    equal: bool = False,
) -> jax.Array:
    """A loss of each element's error; the shapes have to be equal or to fit."""
    [predictions] = floating(predictions=predictions)
    if targets is None:
        return rounded_once(loss, predictions, numbers=numbers)
    [targets] = real(targets=targets)
    if equal:
        same_shape(predictions=predictions, targets=targets)
    else:
        predictions, targets = aligned(predictions=predictions, targets=targets)
    return rounded_once(
        lambda x, y, *numbers: loss(x - y, *numbers),
        predictions,
        targets,
        numbers=numbers,
    )


def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the cosine of the angle between vectors.

        <p, t> / (|p| * |t|)

    The similarity to a zero vector is 0, and its gradient too. Vectors of any
    magnitude are exact: they are scaled first.

    Args:
      predictions: Vectors.
      targets: Vectors that broadcast with the predictions, for example ``(1, n, d)``
        against ``(n, 1, d)`` for all pairs.
      epsilon: The least squared length that a vector is divided by.
      axis: The axis or axes that form a vector; None for all.
      where: Which elements count, of a shape that broadcasts to both.

    Returns:
      One number per pair of vectors.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold floating point numbers.

    >>> cosine_similarity(jnp.array([3.0, 4.0]), jnp.array([1e30, 0.0]))
    Array(0.6, dtype=float32)
    """
    return _of_cosine(lambda c: c, predictions, targets, epsilon, axis, where)


def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return 1 minus the cosine of the angle between vectors.

        1 - <p, t> / (|p| * |t|)

    Args:
      predictions: Vectors.
      targets: Vectors that broadcast with the predictions.
      epsilon: The least squared length that a vector is divided by.
      axis: The axis or axes that form a vector; None for all.
      where: Which elements count, of a shape that broadcasts to both.

    Returns:
      One number per pair of vectors, from 0 to 2; 1 for a zero vector.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold floating point numbers.

    >>> cosine_distance(jnp.array([3.0, 0.0]), jnp.array([[0.0, 2.0], [-1.0, 0.0]]))
    Array([1., 2.], dtype=float32)
    """
    return _of_cosine(lambda c: 1 - c, predictions, targets, epsilon, axis, where)


def _of_cosine(
    loss: Callable[[Any], Any],
    predictions: Any,
    targets: Any,
    epsilon: Any,
    axis: Axis,
    where: Any,
) -> jax.Array:
    """A loss of the cosine between each pair of vectors."""
    arguments.nonnegative(**scalars(epsilon=epsilon))
    predictions, targets = floating(predictions=predictions, targets=targets)
    predictions, targets = aligned(axis, predictions=predictions, targets=targets)
    shape = np.broadcast_shapes(predictions.shape, targets.shape)
    counts = mask(where, shape, axis)

    def of_cosine(x, y, epsilon):
        if counts is not None:
            x, y = jnp.where(counts, x, 0), jnp.where(counts, y, 0)
        units = (unit_vectors(z, axis, epsilon) for z in (x, y))
        return loss(jnp.sum(jnp.multiply(*units), axis=axis))

    return rounded_once(of_cosine, predictions, targets, numbers=[epsilon])


def unit_vectors(x: jax.Array, axis: Axis, epsilon: Any = 0.0) -> jax.Array:
    """Vectors divided by their length, or by the root of ``epsilon`` if that is more.

    Zero vectors stay zero.
    """
    # XLA would square constants before it scales them.
    x = jax.lax.optimization_barrier(x)
    least = jnp.sqrt(jnp.asarray(epsilon, x.dtype))
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0)
    # No square overflows or vanishes if the largest number is about 1.
    scale = jax.lax.stop_gradient(jnp.maximum(largest, least))
    scale = jnp.where(scale == 0, 1, scale)
    x = x / scale
    squares = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    squares = jnp.maximum(squares, jnp.square(least / scale))
    zero = squares == 0
    return jnp.where(zero, 0, x / jnp.sqrt(jnp.where(zero, 1, squares)))
