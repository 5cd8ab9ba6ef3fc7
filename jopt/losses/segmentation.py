"""Losses of a segmentation: how much predicted regions overlap the true ones.

Images have the shape ``(batch, ..., classes)``; a single class is a region and the
rest. ``p`` are the predicted probabilities, ``t`` the targets.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import Axis, axes, floating, real, same_shape, values
from jopt.tree.dtypes import rounded_once
from jopt.tree.ratios import ratio
from jopt.values import arguments


def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axis = None,
) -> jax.Array:
    """Return 1 minus the overlap of predicted and true regions, over the classes.

        both = sum(p * t)
        1 - (both + smooth) / (both + alpha * (sum(p) - both)
                               + beta * (sum(t) - both) + smooth)

    With ``alpha`` and ``beta`` of 0.5 the overlap is the Dice coefficient, otherwise
    the Tversky index. The loss of a class that is neither predicted nor there is 0.

    Args:
      predictions: Logits of shape ``(batch, ..., classes)``. The axis of one class may
        be missing if ``targets`` has it.
      targets: Numbers of the same shape, 0 or 1; the axis of one class may be missing
        if ``predictions`` has it.
      class_weights: One number per class; None means 1.
      smooth: What to add to both sides of the ratio, >= 0.
      alpha: The weight of what is predicted and not there.
      beta: The weight of what is there and not predicted.
      apply_softmax: Whether predictions are logits. If not, they are probabilities:
        they sum to 1 over the classes, or are in [0, 1] for one class. This is checked
        where they are known, which is outside ``jit``.
      reduction: ``"mean"`` or ``"sum"`` over the classes, or ``"none"``.
      ignore_background: Whether to leave out the first class, if there are others.
      axis: The axes of a region; None means all but the first and the last.

    Returns:
      One number per image, or one per image and class without a reduction.

    Raises:
      ValueError: The shapes do not fit, predictions are no probabilities, or an
        argument is out of range.
      TypeError: The predictions are no floating point numbers.

    Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical
    Image Segmentation", 2016. Salehi et al., "Tversky loss function for image
    segmentation using 3D fully convolutional deep networks", 2017.

    >>> pixels = jnp.array([[[0.0], [0.0], [0.0], [0.0]]])
    >>> dice_loss(pixels, jnp.array([[[1], [1], [0], [0]]]), smooth=0)
    Array([0.5], dtype=float32)
    """
    arguments.one_of(("mean", "sum", "none"), reduction=reduction)
    arguments.nonnegative(smooth=smooth, alpha=alpha, beta=beta)
    known = None if apply_softmax else values(predictions)
    [predictions], [targets] = floating(predictions=predictions), real(targets=targets)
    if predictions.ndim == targets.ndim - 1:
        predictions = predictions[..., None]
    elif targets.ndim == predictions.ndim - 1:
        targets = targets[..., None]
    same_shape(predictions=predictions, targets=targets)
    ndim, classes = predictions.ndim, predictions.shape[-1]
    region = tuple(range(1, ndim - 1)) if axis is None else axes(axis, ndim)
    if ndim - 1 in region:
        raise ValueError(
            f"axis must not have the axis of the classes, got axis={axis} for shape "
            f"{predictions.shape}"
        )
    if known is not None:
        _check_probabilities(known.reshape(predictions.shape))
    numbers: list[Any] = [smooth, alpha, beta]
    if class_weights is not None:
        [class_weights] = real(class_weights=class_weights)
        if class_weights.shape != (classes,):
            raise ValueError(
                "class_weights must have one number per class, shape "
                f"({classes},), got shape {class_weights.shape}"
            )
        numbers.append(class_weights)

    def dice(x, t, *numbers):
        loss = _per_class(x, t, numbers[:3], apply_softmax, region)
        if class_weights is not None:
            loss = loss * jnp.broadcast_to(numbers[3], loss.shape)
        if ignore_background and classes > 1:
            loss = loss[..., 1:]
        if reduction == "none":
            return loss
        return (jnp.mean if reduction == "mean" else jnp.sum)(loss, axis=-1)

    return rounded_once(dice, predictions, targets, numbers=numbers)


def _per_class(
    x: jax.Array,
    t: jax.Array,
    numbers: Any,
    apply_softmax: bool,
    region: tuple[int, ...],
) -> jax.Array:
    """The loss of each class."""
    smooth, alpha, beta = numbers
    p = x
    if apply_softmax:
        p = jax.nn.sigmoid(x) if x.shape[-1] == 1 else jax.nn.softmax(x, axis=-1)
    both, predicted, there = (jnp.sum(z, axis=region) for z in (p * t, p, t))
    wrong = alpha * (predicted - both) + beta * (there - both)
    # 1 - (both + smooth) / (both + smooth + wrong)
    return ratio(wrong, both + smooth + wrong)


def _check_probabilities(p: np.ndarray) -> None:
    """Raise unless numbers that are known are probabilities."""
    precision = max(1e-5, float(jnp.finfo(p.dtype).eps))
    p = p.astype(np.float64)
    if p.shape[-1] == 1:
        if not np.all((p >= -precision) & (p <= 1 + precision)):
            raise ValueError(
                "predictions must be probabilities, in [0, 1], if they are no logits, "
                f"got numbers from {p.min():.6g} to {p.max():.6g}"
            )
        return
    sums = p.sum(axis=-1)
    if not np.allclose(sums, 1, rtol=0, atol=precision):
        raise ValueError(
            "predictions must be valid probability distributions, which sum to 1 over "
            f"the last axis, if they are no logits, got sums from {sums.min():.6g} to "
            f"{sums.max():.6g}"
        )


def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> jax.Array:
    """Return the mean of `dice_loss` with rare classes weighted as much as common ones.

        w_c = 1 / (sum(t_c)^2 + 1e-7), scaled to a mean of 1

    Args:
      predictions: Logits of shape ``(batch, ..., classes)``.
      targets: Numbers of the same shape, 0 or 1.
      smooth: What to add to both sides of the ratio, >= 0.
      apply_softmax: Whether predictions are logits, not probabilities.
      ignore_background: Whether to leave out the first class.

    Returns:
      One number.

    Raises:
      ValueError: The shapes differ, or predictions are no probabilities.
      TypeError: The predictions are no floating point numbers.

    Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly
    unbalanced segmentations", 2017, has the weights; there the ratio is that of sums
    over the classes.

    >>> targets = jax.nn.one_hot(jnp.array([[0, 0, 0, 1]]), 2)
    >>> multiclass_generalized_dice_loss(jnp.zeros((1, 4, 2)), targets, smooth=0)
    Array(0.64, dtype=float32)
    """
    arguments.nonnegative(smooth=smooth)
    known = None if apply_softmax else values(predictions)
    [predictions], [targets] = floating(predictions=predictions), real(targets=targets)
    same_shape(predictions=predictions, targets=targets)
    if known is not None:
        _check_probabilities(known)
    region = tuple(range(1, predictions.ndim - 1))

    def generalized(x, t, smooth):
        loss = _per_class(x, t, (smooth, 0.5, 0.5), apply_softmax, region)
        sizes = jnp.sum(t, axis=tuple(range(t.ndim - 1)))
        weights = 1 / (jnp.square(sizes) + 1e-7)
        weights = weights / jnp.mean(weights)
        loss = loss * jnp.broadcast_to(weights, loss.shape)
        if ignore_background and loss.shape[-1] > 1:
            loss = loss[..., 1:]
        return jnp.mean(loss)

    return rounded_once(generalized, predictions, targets, numbers=[smooth])


def binary_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
) -> jax.Array:
    """Return `dice_loss` of one class.

        1 - (2 * sum(p * t) + 2 * smooth) / (sum(p) + sum(t) + 2 * smooth)

    Args:
      predictions: Logits of shape ``(batch, ...)`` or ``(batch, ..., 1)``.
      targets: Numbers of the same shape, 0 or 1; one of both may lack the last axis
        of size 1.
      smooth: What to add to both sides of the ratio, >= 0.
      apply_sigmoid: Whether predictions are logits, not probabilities.

    Returns:
      One number per image.

    Raises:
      ValueError: The shapes do not fit, or predictions are no probabilities.
      TypeError: The predictions are no floating point numbers.

    >>> binary_dice_loss(jnp.zeros((1, 4)), jnp.array([[1, 1, 0, 0]]), smooth=0)
    Array([0.5], dtype=float32)
    """
    if np.ndim(predictions) == np.ndim(targets) and np.shape(predictions)[-1:] != (1,):
        predictions, targets = (jnp.expand_dims(x, -1) for x in (predictions, targets))
    return dice_loss(predictions, targets, smooth=smooth, apply_softmax=apply_sigmoid)
