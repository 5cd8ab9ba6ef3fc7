"""Losses of a margin: the right class should have the largest score, by some distance.

They are 0 for scores that are right by far, which a cross-entropy never is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import (
    aligned,
    in_range,
    integers,
    one_per_example,
    real,
    same_shape,
    values,
)
from jopt.losses.limits import below_top, times
from jopt.tree.dtypes import compute_dtype, promoted, rounded_once


def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return ``max(0, 1 - t * s)`` for every element.

    Args:
      predictor_outputs: The scores ``s``, positive for one class and negative for the
        other.
      targets: The classes ``t``, -1 or 1; they broadcast with the scores.

    Returns:
      One number per element.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold real numbers.

    Cortes and Vapnik, "Support-vector networks", 1995.

    >>> hinge_loss(jnp.array([2.0, 0.5]), jnp.array([1, -1]))
    Array([0. , 1.5], dtype=float32)
    """
    scores, targets = real(predictor_outputs=predictor_outputs, targets=targets)
    scores, targets = aligned(predictor_outputs=scores, targets=targets)
    return rounded_once(
        lambda s, t: jnp.maximum(0, 1 - s * t), scores, targets, kind=0.0
    )


def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return ``max(0, -t * s)`` for every element.

    Args:
      predictor_outputs: The scores ``s``, positive for one class and negative for the
        other.
      targets: The classes ``t``, -1 or 1, of the same shape.

    Returns:
      One number per element.

    Raises:
      ValueError: The shapes differ.
      TypeError: An argument does not hold real numbers.

    Rosenblatt, "The perceptron: a probabilistic model for information storage and
    organization in the brain", 1958.

    >>> perceptron_loss(jnp.array([2.0, 0.5]), jnp.array([1, -1]))
    Array([0. , 0.5], dtype=float32)
    """
    scores, targets = real(predictor_outputs=predictor_outputs, targets=targets)
    same_shape(predictor_outputs=scores, targets=targets)
    return rounded_once(lambda s, t: jnp.maximum(0, -s * t), scores, targets, kind=0.0)


def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return the sparsemax loss of two classes, for every element.

        z = -s for label 1, s for label 0
        0 if z <= -1, z if z >= 1, (z + 1)^2 / 4 in between

    Args:
      logits: The scores ``s``, positive for class 1.
      labels: The classes, 0 or 1, as integers or bools; they broadcast with the scores.

    Returns:
      One number per element, of the dtype of the scores.

    Raises:
      ValueError: The shapes do not fit, or a label is neither 0 nor 1.
      TypeError: The scores are no real numbers, or the labels no integers.

    Blondel, Martins and Niculae, "Learning with Fenchel-Young losses", 2020.

    >>> sparsemax_loss(jnp.array([2.0, 0.0, -3.0]), jnp.array([1, 1, 1]))
    Array([0.  , 0.25, 3.  ], dtype=float32)
    """
    [logits], [classes] = real(logits=logits), real(labels=labels)
    if classes.dtype != bool:
        hint = ". For probabilities, use sigmoid_binary_cross_entropy"
        integers(hint, labels=classes)
    in_range(labels, 2)
    logits, classes = aligned(logits=logits, labels=classes)

    def sparsemax(s):
        z = jnp.where(classes.astype(bool), -s, s)
        return jnp.square(jnp.clip(z, -1, 1) + 1) / 4 + jnp.maximum(z - 1, 0)

    return rounded_once(sparsemax, logits, kind=0.0)


def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return by how much the score of the label misses a margin of 1.

        max(0, max_{i != label} s_i - s_label + 1)

    Args:
      scores: The scores ``s`` of the classes, along the last axis.
      labels: Integers from 0, one per example. Labels that are known before the run
        must be in range.

    Returns:
      One number per example, in float32 or wider.

    Raises:
      ValueError: The shapes do not fit, or a label is out of range.
      TypeError: The scores are no real numbers, or the labels no integers.

    Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based
    vector machines", 2001.

    >>> multiclass_hinge_loss(jnp.array([2.0, 1.5, 0.0]), jnp.array(0))
    Array(0.5, dtype=float32)
    """
    return _largest_excess(scores, labels, 1)


def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return by how much the largest score exceeds that of the label.

        max_i s_i - s_label

    Args:
      scores: The scores ``s`` of the classes, along the last axis.
      labels: Integers from 0, one per example. Labels that are known before the run
        must be in range.

    Returns:
      One number per example, in float32 or wider.

    Raises:
      ValueError: The shapes do not fit, or a label is out of range.
      TypeError: The scores are no real numbers, or the labels no integers.

    Collins, "Discriminative training methods for hidden Markov models: theory and
    experiments with perceptron algorithms", 2002.

    >>> multiclass_perceptron_loss(jnp.array([2.0, 1.5, 0.0]), jnp.array(1))
    Array(0.5, dtype=float32)
    """
    return _largest_excess(scores, labels, 0)


def _largest_excess(scores: Any, labels: Any, margin: float) -> jax.Array:
    """The largest of 0 and ``s_i - s_label + margin``."""
    s, is_label = _scores_and_label(scores, labels)
    excess = below_top(s, _of_label(s, is_label)) + margin
    return jnp.max(jnp.where(is_label, 0, excess), axis=-1)


def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return the sparsemax loss.

        p = sparsemax(s), the nearest distribution to the scores
        <p, s> + (1 - <p, p>) / 2 - s_label

    Its gradient is ``p - one_hot(label)``. It is 0 if the score of the label is larger
    than all others by 1.

    Args:
      scores: The scores ``s`` of the classes, along the last axis.
      labels: Integers from 0, one per example. Labels that are known before the run
        must be in range.

    Returns:
      One number per example, in float32 or wider.

    Raises:
      ValueError: The shapes do not fit, or a label is out of range.
      TypeError: The scores are no real numbers, or the labels no integers.

    Martins and Astudillo, "From softmax to sparsemax: a sparse model of attention and
    multi-label classification", 2016.

    >>> multiclass_sparsemax_loss(jnp.array([2.0, 1.5, 0.0]), jnp.array(0))
    Array(0.0625, dtype=float32)
    """
    s, is_label = _scores_and_label(scores, labels)
    # The loss is the same for scores minus a constant.
    s = below_top(s, jax.lax.stop_gradient(jnp.max(s, axis=-1, keepdims=True)))
    falling = -jnp.sort(-s, axis=-1)
    counts = jnp.arange(1, s.shape[-1] + 1, dtype=s.dtype)
    # The k largest scores minus one threshold sum to 1; the right k has the largest.
    thresholds = (jnp.cumsum(falling, axis=-1) - 1) / jnp.broadcast_to(counts, s.shape)
    p = jnp.maximum(s - jnp.max(thresholds, axis=-1, keepdims=True), 0)
    excess = below_top(s, _of_label(s, is_label))
    gini = 0.5 * (1 - jnp.sum(jnp.square(p), axis=-1))
    return jnp.sum(times(p, excess), axis=-1) + gini


def _scores_and_label(scores: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """The scores in float32 or wider, and bools that are true for the label."""
    [scores] = real(scores=scores)
    if scores.ndim == 0:
        raise ValueError("scores must have an axis of classes, got one number")
    known = values(labels)
    [labels] = integers(labels=labels)
    one_per_example("scores", scores, labels)
    if known is not None:
        in_range(known, scores.shape[-1])
    classes = jnp.arange(scores.shape[-1], dtype=labels.dtype)
    shape = np.broadcast_shapes((*labels.shape, 1), scores.shape)
    is_label = jnp.broadcast_to(labels[..., None], shape) == jnp.broadcast_to(
        classes, shape
    )
    scores = scores.astype(compute_dtype(promoted(scores, 0.0)))
    return jnp.broadcast_to(scores, shape), is_label


def _of_label(s: jax.Array, is_label: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(is_label, s, 0), axis=-1, keepdims=True)
