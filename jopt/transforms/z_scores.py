"""ZClip: clip gradients whose norm is an outlier among the previous norms."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ZclipState(NamedTuple):
    """State of `zclip`."""

    count: jax.Array  # int32 scalar, updates so far
    mean: jax.Array  # moving average of the global norm
    deviation: jax.Array  # its standard deviation


@transformation
def zclip(
    alpha: ScalarOrSchedule = 0.97,
    z_thresh: ScalarOrSchedule = 2.5,
    max_norm: ScalarOrSchedule | None = 1.0,
    eps: ScalarOrSchedule = 1e-6,
    warmup_steps: int = 25,
) -> GradientTransformation:
    """Bound the norm of all gradients together by statistics of previous norms.

        z     <- (|G| - mean) / (deviation + eps)
        norm  <- mean + z_thresh^2 deviation / z   if z > z_thresh, else |G|
        u     <- g min(norm, max_norm) / |G|
        mean  <- alpha mean + (1 - alpha) norm
        deviation^2 <- alpha deviation^2 + (1 - alpha) (norm - mean)^2

    The first ``warmup_steps`` norms only initialize mean and deviation; until then only
    ``max_norm`` clips. If the norm is inf or NaN, all updates are NaN and the
    statistics do not change.

    Args:
      alpha: Decay of the statistics, in [0, 1).
      z_thresh: Number of deviations above the mean that makes an outlier, > 0.
      max_norm: Upper bound of the norm at every step, > 0; None sets no bound.
      eps: Added to the deviation, > 0.
      warmup_steps: Number of norms that initialize the statistics, >= 1.

    Returns:
      A transformation; put it first in a chain.

    Raises:
      ValueError: An argument is out of range.

    Kumar, Owen, Chowdhury & Güra, "ZClip: adaptive spike mitigation for LLM
    pre-training", 2025. Same as their code with its default options, except that it
    adds 1e-6 to the norm it divides by.

    >>> import jopt
    >>> tx = jopt.zclip(max_norm=None, warmup_steps=2)
    >>> state = tx.init(jnp.zeros(1))
    >>> for norm in (1.0, 1.2):
    ...     _, state = tx.update(jnp.array([norm]), state)
    >>> tx.update(jnp.array([100.0]), state)[0].round(2)
    Array([1.1], dtype=float32)
    """
    arguments.decay_rate(alpha=alpha)
    arguments.positive(z_thresh=z_thresh, eps=eps)
    arguments.at_least(1, warmup_steps=warmup_steps)
    if max_norm is not None:
        arguments.positive(max_norm=max_norm)

    def scalars(t, updates, mean, deviation):
        norm = tree.norm(updates)
        starting = t <= warmup_steps
        z = (norm - mean) / (deviation + eps)
        outlier = (z > z_thresh) & ~starting
        reduced = mean + z_thresh**2 * deviation / jnp.where(outlier, z, 1)
        # The statistics see the reduced norm, so that a spike does not widen them.
        tamed = jnp.where(outlier, reduced, norm)
        # During warmup, the plain mean and deviation of t norms from those of t - 1;
        # afterwards, moving averages.
        weight = jnp.where(starting, 1 / t, 1 - alpha)
        new_mean = mean + weight * (tamed - mean)
        share = jnp.where(starting, 1 - 1 / t, 1)
        spread = jnp.sqrt(weight * share) * jnp.abs(
            tamed - jnp.where(starting, mean, new_mean)
        )
        # hypot on deviations instead of a sum of variances: the squares of large norms
        # would overflow.
        new_deviation = jnp.hypot(jnp.sqrt(1 - weight) * deviation, spread)
        bound = tamed if max_norm is None else jnp.minimum(tamed, max_norm)
        factor = jnp.where(norm > bound, bound / jnp.where(norm > 0, norm, 1), 1)
        finite = jnp.isfinite(norm)
        return {
            "factor": jnp.where(finite, factor, jnp.nan),
            "mean": jnp.where(finite, new_mean, mean),
            "deviation": jnp.where(finite, new_deviation, deviation),
        }

    return leafwise(
        lambda g, *, factor: factor * g,
        scalars,
        ZclipState,
        carry={"mean": 0.0, "deviation": 0.0},
        gain="clip_factor",
    )
