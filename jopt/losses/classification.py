"""Losses of a classifier: cross-entropies of logits and labels.

A logit is a log-probability up to a constant: ``softmax(logits)`` are the probabilities
of exclusive classes, ``sigmoid(logit)`` is that of one label.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import (
    Axis,
    aligned,
    axes,
    floating,
    in_range,
    integers,
    mask,
    one_per_example,
    real,
    scalars,
    values,
)
from jopt.losses.limits import (
    below_top,
    cross_entropy,
    log_softmax,
    softmax_parts,
    times,
)
from jopt.tree.dtypes import rounded_once
from jopt.values import arguments


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return the cross-entropy of a label that holds or not, for every element.

        -y * log(sigmoid(x)) - (1 - y) * log(sigmoid(-x))

    Use it where several labels may hold at once, or for two classes.

    Args:
      logits: The logit ``x`` that the label holds.
      labels: 0 or 1, or the probability ``y`` of 1; they broadcast with the logits.

    Returns:
      One number per element, of the dtype of the logits.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: The logits are no floating point numbers.

    Goodfellow, Bengio and Courville, "Deep Learning", 2016, chapter 6.2.2.2.

    >>> sigmoid_binary_cross_entropy(jnp.array([0.0, jnp.inf]), jnp.array([1, 1]))
    Array([0.6931472, 0.       ], dtype=float32)
    """
    logits, labels = _logits_and_labels(logits, labels)
    return rounded_once(_binary, logits, numbers=[labels])


def _binary(x: jax.Array, y: jax.Array) -> jax.Array:
    # -log(sigmoid(x)) = softplus(-x)
    return times(y, jax.nn.softplus(-x)) + times(1 - y, jax.nn.softplus(x))


def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
) -> jax.Array:
    """Return a binary cross-entropy that elements count less in, the better they fit.

        q = (1 - y) * sigmoid(x) + y * sigmoid(-x)    the probability of being wrong
        q^gamma * sigmoid_binary_cross_entropy(x, y)

    With ``alpha`` this is multiplied by ``alpha * y + (1 - alpha) * (1 - y)``.

    Args:
      logits: The logit ``x`` that the label holds.
      labels: 0 or 1, or the probability ``y`` of 1; they broadcast with the logits.
      alpha: The weight of positive labels, in [0, 1]; negative ones have the rest. None
        gives every label the weight 1.
      gamma: How much elements that fit are left out, >= 0; 0 gives the cross-entropy.

    Returns:
      One number per element, of the dtype of the logits.

    Raises:
      ValueError: The shapes do not fit, or a number is out of range.
      TypeError: The logits are no floating point numbers.

    Lin et al., "Focal Loss for Dense Object Detection", 2017.

    >>> sigmoid_focal_loss(jnp.array([0.0, -3.0]), jnp.array([1, 1])).round(1)
    Array([0.2, 2.8], dtype=float32)
    """
    arguments.nonnegative(**scalars(gamma=gamma))
    if alpha is not None:
        arguments.fraction(**scalars(alpha=alpha))
    logits, labels = _logits_and_labels(logits, labels)

    def focal(x, y, gamma, *alpha):
        x, y = jnp.broadcast_arrays(x, y)
        # Finite logits, so that no logarithm is infinite. In logs, because q itself
        # vanishes in float32 where q^gamma does not.
        largest = jnp.finfo(x.dtype).max / 8
        x = jnp.clip(x, -largest, largest)
        log_p, log_not_p = jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x)
        top = jnp.where(y == 0, log_p, jnp.maximum(log_p, log_not_p))
        top = jax.lax.stop_gradient(jnp.where(y == 1, log_not_p, top))

        def below(log):
            # Above the top are only terms of weight 0.
            return jnp.exp(jnp.where(log > top, 0, log - top))

        log_q = top + jnp.log((1 - y) * below(log_p) + y * below(log_not_p))
        loss = -jnp.exp(gamma * log_q) * (y * log_p + (1 - y) * log_not_p)
        return times(alpha[0] * y + (1 - alpha[0]) * (1 - y), loss) if alpha else loss

    numbers = [labels, gamma] if alpha is None else [labels, gamma, alpha]
    return rounded_once(focal, logits, numbers=numbers)


def _logits_and_labels(logits: Any, labels: Any) -> list[jax.Array]:
    [logits], [labels] = floating(logits=logits), real(labels=labels)
    return aligned(logits=logits, labels=labels)


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy of a distribution over exclusive classes.

        -sum_i y_i * log(softmax(x)_i)

    A class of probability 0 adds 0, even where its logit is minus infinity.

    Args:
      logits: The logits ``x``.
      labels: The probabilities ``y`` of the classes, one-hot for instance; they
        broadcast with the logits.
      axis: The axis or axes of the classes; None for all.
      where: Which elements count: bools like the logits, or one per example.

    Returns:
      One number per example; 0 if no class of it counts.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: The logits are no floating point numbers.

    Goodfellow, Bengio and Courville, "Deep Learning", 2016, chapter 6.2.2.3.

    >>> softmax_cross_entropy(jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.eye(3)[:1])
    Array([0.6931472], dtype=float32)
    """
    logits, labels, counts = _of_classes(logits, labels, axis, where)
    return rounded_once(lambda x, y: cross_entropy(x, y, axis, counts), logits, labels)


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return `softmax_cross_entropy` along the last axis.

    In optax only this function is right at logits of minus infinity. Here both are.

    Args:
      logits: The logits.
      labels: The probabilities of the classes; they broadcast with the logits.

    Returns:
      One number per example.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: The logits are no floating point numbers.

    >>> safe_softmax_cross_entropy(jnp.array([0.0, -jnp.inf]), jnp.array([1.0, 0.0]))
    Array(0., dtype=float32)
    """
    return softmax_cross_entropy(logits, labels)


def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy plus a multiple of the probability of being wrong.

        softmax_cross_entropy(x, y) + epsilon * sum_i y_i * (1 - softmax(x)_i)

    The Taylor series of the cross-entropy in ``1 - softmax(x)_i`` has coefficients of
    ``1 / j``; this loss (Poly-1) changes the first one.

    Args:
      logits: The logits ``x``.
      labels: The probabilities ``y`` of the classes; they broadcast with the logits.
      epsilon: What to add to the first coefficient. The paper takes 2 for ImageNet and
        -1 for detection.
      axis: The axis or axes of the classes; None for all.
      where: Which elements count: bools like the logits, or one per example.

    Returns:
      One number per example; 0 if no class of it counts.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: The logits are no floating point numbers.

    Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
    Functions", 2022.

    >>> poly_loss_cross_entropy(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]))
    Array(1.6931472, dtype=float32)
    """
    logits, labels, counts = _of_classes(logits, labels, axis, where)

    def poly(x, y, epsilon):
        if counts is not None:
            y = jnp.where(counts, y, 0)
        wrong = 1 - jnp.exp(log_softmax(x, axis, counts))
        mean = jnp.sum(y * wrong, axis=axis)
        return cross_entropy(x, y, axis, counts) + epsilon * mean

    return rounded_once(poly, logits, labels, numbers=[epsilon])


def _of_classes(logits: Any, labels: Any, axis: Axis, where: Any) -> list[Any]:
    """The logits, the probabilities that belong to them, and which of them count."""
    hint = (
        ". For labels that are the number of a class, use "
        "softmax_cross_entropy_with_integer_labels"
    )
    [logits], [labels] = floating(logits=logits), real(labels=labels)
    logits, labels = aligned(axis, hint, logits=logits, labels=labels)
    shape = np.broadcast_shapes(logits.shape, labels.shape)
    return [logits, labels, mask(where, shape, axis, per_example=True)]


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy of labels that are the number of a class.

        -log(softmax(x)_label) = log(sum_i exp(x_i)) - x_label

    A label that is out of range is an error if it is known before the run. Inside
    ``jit`` it cannot be: a label that is too large gives NaN, and one below 0 counts
    from the end.

    Args:
      logits: The logits ``x``.
      labels: Integers from 0; the shape is that of the logits without ``axis``.
      axis: The axis of the classes. Several axes hold the classes together, in their
        order, and a label counts through them as through one.
      where: Which elements count: bools like the logits, or one per example.

    Returns:
      One number per example, of the dtype of the logits; 0 if no class of it counts.

    Raises:
      ValueError: The shapes do not fit, or a label is out of range.
      TypeError: The logits are no floating point numbers, or the labels no integers.

    Goodfellow, Bengio and Courville, "Deep Learning", 2016, chapter 6.2.2.3.

    >>> softmax_cross_entropy_with_integer_labels(jnp.zeros((2, 3)), jnp.array([0, 2]))
    Array([1.0986123, 1.0986123], dtype=float32)
    """
    if axis is None:
        raise ValueError("axis must be an int or a tuple of ints, got axis=None")
    known = values(labels)
    hint = ". For probabilities of the classes, use softmax_cross_entropy"
    [logits], [labels] = floating(logits=logits), integers(hint, labels=labels)
    counts = mask(where, logits.shape, axis, per_example=True)
    along = axes(axis, logits.ndim)
    batch = [i for i in range(logits.ndim) if i not in along]

    def with_classes_last(x):
        x = x.transpose(*batch, *along)
        return x.reshape(*x.shape[: len(batch)], -1)

    logits = with_classes_last(logits)
    counts = None if counts is None else with_classes_last(counts)
    one_per_example("logits", logits, labels)
    if known is not None:
        ignored = None if counts is None else ~jnp.any(counts, axis=-1)
        in_range(known, logits.shape[-1], ignored)

    def of_label(x):
        top, _, log_total = softmax_parts(x, -1, counts)
        label = jnp.take_along_axis(x, labels[..., None], axis=-1)
        loss = (log_total - below_top(label, top))[..., 0]
        if counts is None:
            return loss
        return jnp.where(jnp.any(counts, axis=-1), loss, 0)

    return rounded_once(of_label, logits)
