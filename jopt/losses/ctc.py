"""Connectionist temporal classification: labels in order, without their times.

Each frame emits a label or a blank. A path stands for the labels that remain when
repetitions are merged and blanks dropped after that. The loss is the negative
logarithm of the probability of all paths that stand for the given labels.

Graves et al., "Connectionist temporal classification: labelling unsegmented sequence
data with recurrent neural networks", 2006.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import floating, in_range, integers, real, same_shape, values
from jopt.losses.limits import log_softmax
from jopt.tree.dtypes import compute_dtype
from jopt.values import arguments


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> jax.Array:
    """Return the CTC loss of each sequence.

        -log(sum of the probabilities of all paths that stand for the labels)

    Args:
      logits: Logits of shape ``(batch, frames, classes)``; the blank is a class.
      logit_paddings: 1 for each frame that is padding, else 0; ``(batch, frames)``.
      labels: Integers of shape ``(batch, n)``.
      label_paddings: 1 for each label that is padding, else 0; in each row all labels
        come first.
      blank_id: The class of the blank.
      log_epsilon: What stands for the logarithm of 0. A sequence with too few frames
        for its labels has about minus this loss.

    Returns:
      One number per sequence, in float32 or wider.

    Raises:
      ValueError: The shapes do not fit, or a label or ``blank_id`` is out of range.
      TypeError: The logits are no floating point numbers, or the labels no integers.

    >>> logits = jnp.zeros((1, 2, 3))
    >>> no_padding = jnp.zeros((1, 2))
    >>> ctc_loss(logits, no_padding, jnp.array([[1, 2]]), no_padding)  # log(9)
    Array([2.1972246], dtype=float32)
    """
    return ctc_loss_with_forward_probs(
        logits,
        logit_paddings,
        labels,
        label_paddings,
        blank_id=blank_id,
        log_epsilon=log_epsilon,
    )[0]


def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the CTC loss of each sequence, and the probabilities of its beginnings.

        a_b(t, n): the first t frames emit n labels, the last frame is a blank
        a_l(t, n): the first t frames emit n labels, the last frame is label n

        a_b(t, n) = blank_t * (a_b(t-1, n) + a_l(t-1, n))
        a_l(t, n) = label_tn * (a_l(t-1, n) + a_b(t-1, n-1)
                                + a_l(t-1, n-1) if label n is not label n-1)

    Args:
      logits: Logits of shape ``(batch, frames, classes)``; the blank is a class.
      logit_paddings: 1 for each frame that is padding, else 0; ``(batch, frames)``.
      labels: Integers of shape ``(batch, n)``.
      label_paddings: 1 for each label that is padding, else 0; in each row all labels
        come first.
      blank_id: The class of the blank.
      log_epsilon: What stands for the logarithm of 0. A sequence with too few frames
        for its labels has about minus this loss.

    Returns:
      The loss per sequence; the logarithms of ``a_b`` for n from 0, of shape
      ``(frames, batch, n + 1)``, of which the last frame has ``a_b + a_l``; and those
      of ``a_l`` for n from 1, of shape ``(frames, batch, n)``. All are in float32 or
      wider.

    Raises:
      ValueError: The shapes do not fit, or a label or ``blank_id`` is out of range.
      TypeError: The logits are no floating point numbers, or the labels no integers.

    >>> loss, blank, label = ctc_loss_with_forward_probs(
    ...     jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)), jnp.array([[1]]), jnp.zeros((1, 1))
    ... )
    >>> jnp.exp(label[-1])
    Array([[0.5]], dtype=float32)
    """
    known = values(labels), values(label_paddings)
    [logits], [labels] = floating(logits=logits), integers(labels=labels)
    frame_pads, label_pads = real(
        logit_paddings=logit_paddings, label_paddings=label_paddings
    )
    _check(logits, frame_pads, labels, label_pads, blank_id)
    frame_pads, label_pads = frame_pads.astype(bool), label_pads.astype(bool)
    _check_values(*known, logits.shape[-1])
    labels = jnp.where(label_pads, blank_id, labels)

    dtype = compute_dtype(logits.dtype)
    zero = jnp.asarray(log_epsilon, dtype)
    log_p = log_softmax(logits.astype(dtype), -1)
    # No number is infinite from here on, so no derivative is NaN.
    log_p = jnp.where(log_p == -jnp.inf, zero, log_p)
    of_label = jnp.take_along_axis(log_p, labels[:, None, :], axis=-1)
    of_blank = log_p[:, :, blank_id, None]
    # From label n to label n + 1 without a blank between them, unless they are equal.
    step = jnp.where(labels[:, 1:] == labels[:, :-1], zero, 0).astype(dtype)

    frames = [jnp.swapaxes(x, 0, 1) for x in (of_blank, of_label, frame_pads)]
    ends, blanks, label_ends = _forward(frames, step, zero)
    lengths = labels.shape[1] - jnp.sum(label_pads, axis=1)
    loss = -jnp.take_along_axis(ends, lengths[:, None], axis=1)[:, 0]
    return loss, blanks, label_ends


@jax.jit
def _forward(
    frames: list[jax.Array], step: jax.Array, zero: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The probabilities of all beginnings, and of the whole, in logarithms.

    Args:
      frames: By frame and sequence: the blank's, those of the labels, and whether the
        frame is padding.
      step: What a step from one label to the next without a blank multiplies by.
      zero: What stands for the logarithm of 0.
    """
    batch, n = frames[1].shape[1:]
    blank = jnp.full((batch, n + 1), zero).at[:, 0].set(0)
    label = jnp.full((batch, n), zero)

    def first_and(rest, first):
        return jnp.concatenate([first[:, :1], rest], axis=-1)

    def next_frame(before, frame):
        blank, label = before
        log_blank, log_label, padding = frame
        entry = jnp.logaddexp(blank[:, 1:-1], label[:, :-1] + step)
        entry = first_and(entry, blank)[:, :n]
        new_label = log_label + jnp.logaddexp(label, entry)
        either = first_and(jnp.logaddexp(blank[:, 1:], label), blank)
        new_blank = log_blank + either
        after = (
            jnp.where(padding[:, None], blank, new_blank),
            jnp.where(padding[:, None], label, new_label),
        )
        return after, after

    last, (blanks, label_ends) = jax.lax.scan(next_frame, (blank, label), frames)
    ends = first_and(jnp.logaddexp(last[0][:, 1:], last[1]), last[0])
    return ends, blanks.at[-1].set(ends), label_ends


def _check(logits: Any, frames: Any, labels: Any, paddings: Any, blank_id: Any) -> None:
    """Raise unless the shapes fit."""
    if logits.ndim != 3 or labels.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            "logits must have the shape (batch, frames, classes) and labels (batch, "
            f"n), got logits of shape {logits.shape} and labels of shape {labels.shape}"
        )
    if logits.shape[1] == 0:
        raise ValueError(f"logits must have frames, got shape {logits.shape}")
    same_shape(logits_of_a_class=logits[..., 0], logit_paddings=frames)
    same_shape(labels=labels, label_paddings=paddings)
    arguments.below("classes", logits.shape[-1], blank_id=blank_id)


def _check_values(
    labels: np.ndarray | None, paddings: np.ndarray | None, classes: int
) -> None:
    """Raise if a label that is known is no class, or comes after padding."""
    if paddings is None:
        return
    padded = paddings != 0
    if (padded[:, :-1] & ~padded[:, 1:]).any():
        row = int(np.argmax((padded[:, :-1] & ~padded[:, 1:]).any(axis=1)))
        raise ValueError(
            "label_paddings must be zeros and then ones in each row, got row "
            f"{row}: {paddings[row].tolist()}"
        )
    if labels is not None:
        in_range(labels, classes, padded)
