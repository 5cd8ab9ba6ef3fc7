"""Fenchel-Young losses: a loss from a maximum over predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt.losses.inputs import aligned, floating, real
from jopt.losses.limits import times
from jopt.tree.dtypes import rounded_once


def make_fenchel_young_loss(
    max_fun: Callable[..., Any],
) -> Callable[..., jax.Array]:
    """Return the loss whose gradient is the prediction minus the target.

        loss(s, t) = max_fun(s) - <t, s>

    ``max_fun(s)`` is a maximum over predictions ``p`` of ``<p, s>`` minus a convex
    function of ``p``. Its gradient is the prediction: log-sum-exp gives softmax and the
    cross-entropy, the largest score gives the perceptron's loss.

    Args:
      max_fun: A function of the scores of one example, an array with one axis. It gets
        the loss's further arguments too.

    Returns:
      A function of scores and targets, which broadcast. It works along the last axis
      and returns one number per example.

    Blondel, Martins and Niculae, "Learning with Fenchel-Young losses", 2020.

    >>> loss = make_fenchel_young_loss(jax.nn.logsumexp)
    >>> loss(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]]))
    Array([0.6931472], dtype=float32)
    """

    def fenchel_young_loss(
        scores: ArrayLike, targets: ArrayLike, *args: Any, **kwargs: Any
    ) -> jax.Array:
        [scores], [targets] = floating(scores=scores), real(targets=targets)
        scores, targets = aligned(-1, scores=scores, targets=targets)
        maximum = jnp.vectorize(
            lambda row: max_fun(row, *args, **kwargs), signature="(n)->()"
        )
        return rounded_once(
            lambda s, t: maximum(s) - jnp.sum(times(t, s), axis=-1), scores, targets
        )

    return fenchel_young_loss
