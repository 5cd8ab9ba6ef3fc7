"""Kullback-Leibler divergences of a target distribution from a predicted one."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import Axis, aligned, floating, mask
from jopt.losses.limits import times
from jopt.tree.dtypes import rounded_once


def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the Kullback-Leibler divergence of targets from predictions.

        sum_i t_i * (log(t_i) - log(p_i))

    A target of 0 adds 0, whatever the prediction.

    Args:
      log_predictions: The logarithms of the predicted probabilities ``p``.
      targets: The probabilities ``t``; they broadcast with the predictions.
      axis: The axis or axes of the distribution; None for all.
      where: Which elements count, of a shape that broadcasts to them.

    Returns:
      One number per distribution.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold floating point numbers.

    Kullback and Leibler, "On information and sufficiency", 1951.

    >>> kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([1.0, 0.0]))
    Array(0.6931472, dtype=float32)
    """
    return _divergence(_terms, log_predictions, "targets", targets, axis, where)


def _terms(log_p: jax.Array, t: jax.Array) -> jax.Array:
    log_t = jnp.where(t == 0, 0, jnp.log(jnp.where(t == 0, 1, t)))
    return times(t, log_t - log_p)


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return `kl_divergence` of targets that are given as logarithms.

        sum_i t_i * (log(t_i) - log(p_i))

    Args:
      log_predictions: The logarithms of the predicted probabilities ``p``.
      log_targets: The logarithms of the probabilities ``t``; minus infinity for 0.
      axis: The axis or axes of the distribution; None for all.
      where: Which elements count, of a shape that broadcasts to them.

    Returns:
      One number per distribution.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold floating point numbers.

    >>> log_p, log_t = jnp.log(jnp.array([[0.5, 0.5], [1.0, 0.0]]))
    >>> kl_divergence_with_log_targets(log_p, log_t)
    Array(0.6931472, dtype=float32)
    """

    def terms(log_p, log_t):
        zero = log_t == -jnp.inf
        difference = jnp.where(zero, 0, jnp.where(zero, 0, log_t) - log_p)
        return jnp.exp(log_t) * difference

    return _divergence(terms, log_predictions, "log_targets", log_targets, axis, where)


def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the Kullback-Leibler divergence of numbers that need not sum to 1.

        sum_i t_i * (log(t_i) - log(p_i)) + p_i - t_i

    It is the Bregman divergence of ``x log(x)``. For distributions it is the same as
    `kl_divergence`.

    Args:
      log_predictions: The logarithms of the predicted numbers ``p``.
      targets: The numbers ``t``, >= 0; they broadcast with the predictions.
      axis: The axis or axes to sum over; None for all.
      where: Which elements count, of a shape that broadcasts to them.

    Returns:
      One number per sum.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold floating point numbers.

    Bregman, "The relaxation method of finding the common point of convex sets", 1967.

    >>> generalized_kl_divergence(jnp.log(jnp.array([2.0, 1.0])), jnp.array([0.0, 1.0]))
    Array(2., dtype=float32)
    """

    def terms(log_p, t):
        return _terms(log_p, t) + jnp.exp(log_p) - t

    return _divergence(terms, log_predictions, "targets", targets, axis, where)


def convex_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return `generalized_kl_divergence`, whose former name in optax this is.

    Args:
      log_predictions: The logarithms of the predicted numbers.
      targets: The numbers, >= 0; they broadcast with the predictions.
      axis: The axis or axes to sum over; None for all.
      where: Which elements count, of a shape that broadcasts to them.

    Returns:
      One number per sum.

    Raises:
      ValueError: The shapes do not fit.
      TypeError: An argument does not hold floating point numbers.

    >>> with warnings.catch_warnings(action="ignore"):
    ...     convex_kl_divergence(jnp.log(jnp.array([2.0])), jnp.array([0.0]))
    Array(2., dtype=float32)
    """
    warnings.warn(
        "convex_kl_divergence is deprecated, use generalized_kl_divergence",
        DeprecationWarning,
        stacklevel=2,
    )
    return generalized_kl_divergence(log_predictions, targets, axis, where)


def _divergence(
    terms: Any, log_predictions: Any, name: str, targets: Any, axis: Axis, where: Any
) -> jax.Array:
    """The sum of the terms that count."""
    [predictions] = floating(log_predictions=log_predictions)
    [targets] = floating(**{name: targets})
    predictions, targets = aligned(
        axis, **{"log_predictions": predictions, name: targets}
    )
    shape = np.broadcast_shapes(predictions.shape, targets.shape)
    counts = mask(where, shape, axis)

    def of_distributions(log_p, t):
        if counts is None:
            return jnp.sum(terms(log_p, t), axis=axis)
        # Numbers that do not count must not reach a derivative either.
        log_p, t = jnp.where(counts, log_p, 0), jnp.where(counts, t, 0)
        return jnp.sum(jnp.where(counts, terms(log_p, t), 0), axis=axis)

    return rounded_once(of_distributions, predictions, targets)
