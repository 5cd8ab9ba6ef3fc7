"""Losses of a ranking: lists of items with scores, and how relevant each item is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import aligned, floating, mask, real
from jopt.losses.limits import cross_entropy
from jopt.tree.dtypes import rounded_once


def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., Any] | None = jnp.mean,
) -> jax.Array:
    """Return the cross-entropy of the relevance of each list's items.

        -sum_i w_i * y_i * log(softmax(s)_i)

    Args:
      logits: The scores ``s`` of the items, along the last axis.
      labels: How relevant each item is, ``y`` >= 0; they broadcast with the scores.
      where: Which items count, of a shape that broadcasts to the scores. Lists in which
        no item counts are left out of the mean.
      weights: The weights ``w`` of the items; None means 1.
      reduce_fn: How to reduce the losses of the lists, ``jnp.mean`` or ``jnp.sum``, or
        None. It is called with ``where=``, which lists count.

    Returns:
      What ``reduce_fn`` returns, or one number per list, in the dtype of the scores; 0
      if no item counts.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: The scores are no floating point numbers.

    Cao et al., "Learning to rank: from pairwise approach to listwise approach", 2007.

    >>> ranking_softmax_loss(jnp.array([2.0, 2.0, 9.0]), jnp.array([1.0, 0.0, 0.0]),
    ...                      where=jnp.array([True, True, False]))
    Array(0.6931472, dtype=float32)
    """
    [logits], [labels] = floating(logits=logits), real(labels=labels)
    logits, labels = aligned(-1, logits=logits, labels=labels)
    numbers = [labels]
    if weights is not None:
        [weights] = real(weights=weights)
        labels, weights = aligned(labels=labels, weights=weights)
        numbers = [labels, weights]
    shape = np.broadcast_shapes(logits.shape, labels.shape)
    counts = mask(where, shape, -1)
    lists = None if counts is None else jnp.any(counts, axis=-1)

    def of_lists(s, y, *weights):
        loss = cross_entropy(s, y * weights[0] if weights else y, -1, counts)
        if reduce_fn is None:
            return loss
        if reduce_fn is jnp.mean and lists is not None:
            # The mean of no lists is 0.
            number = jnp.maximum(jnp.sum(lists), 1).astype(loss.dtype)
            return jnp.sum(loss, where=lists) / number
        return reduce_fn(loss, where=lists)

    return rounded_once(of_lists, logits, numbers=numbers)
