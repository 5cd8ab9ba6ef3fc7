"""Softer labels for a cross-entropy."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt.losses.inputs import Axis, axes, floating, mask, scalars
from jopt.tree.dtypes import rounded_once
from jopt.values import arguments


def smooth_labels(
    labels: ArrayLike,
    alpha: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return labels mixed with the uniform distribution over ``n`` classes.

        (1 - alpha) * y + alpha / n

    Args:
      labels: The probabilities ``y`` of the classes, one-hot for instance.
      alpha: How much of the uniform distribution, in [0, 1].
      axis: The axis or axes of the classes; None for all.
      where: Which classes ``n`` counts, of a shape that broadcasts to the labels. The
        others are smoothed too; a loss with the same ``where`` leaves them out.

    Returns:
      An array like ``labels``.

    Raises:
      ValueError: ``alpha`` is out of range, or the shapes do not fit.
      TypeError: The labels are no floating point numbers.

    Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016.

    >>> smooth_labels(jnp.array([0.0, 1.0]), 0.5)
    Array([0.25, 0.75], dtype=float32)
    """
    arguments.fraction(**scalars(alpha=alpha))
    [labels] = floating(labels=labels)
    counts = mask(where, labels.shape, axis)
    classes = math.prod(labels.shape[i] for i in axes(axis, labels.ndim))

    def smoothed(y, alpha):
        if counts is None:
            return (1 - alpha) * y + alpha / classes
        n = jnp.sum(counts, axis=axis, keepdims=True)
        return (1 - alpha) * y + alpha / jnp.maximum(n, 1).astype(y.dtype)

    return rounded_once(smoothed, labels, numbers=[alpha])
