"""ZClip: clip gradients whose norm is an outlier among the norms so far."""

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
    mean: jax.Array  # of the global norms
    deviation: jax.Array  # their standard deviation


@transformation
def zclip(
    alpha: ScalarOrSchedule = 0.97,
    z_thresh: ScalarOrSchedule = 2.5,
    max_norm: ScalarOrSchedule | None = 1.0,
    eps: ScalarOrSchedule = 1e-6,
    warmup_steps: int = 25,
) -> GradientTransformation:
    """Bound the norm of all gradients together by what is usual for it.

        z     <- (|G| - mean) / (deviation + eps)
        norm  <- mean + z_thresh^2 deviation / z   if z > z_thresh, else |G|
        u     <- g min(norm, max_norm) / |G|
        mean  <- alpha mean + (1 - alpha) norm
        deviation^2 <- alpha deviation^2 + (1 - alpha) (norm - mean)^2

    The first ``warmup_steps`` norms only make the first mean and deviation; meanwhile
    ``max_norm`` alone clips. If the norm is inf or NaN, all updates are NaN and the
    statistics stay.

    Args:
      alpha: Decay of the statistics, in [0, 1).
      z_thresh: How many deviations above the mean are an outlier, > 0.
      max_norm: A bound of the norm in any case, > 0; None is none.
      eps: Added to the deviation, > 0.
      warmup_steps: The number of norms to start from, >= 1.

    Returns:
      A transformation; it comes first in a chain.

    Raises:
      ValueError: A number is out of its range.

    Kumar, Owen, Chowdhury & Güra, "ZClip: adaptive spike mitigation for LLM
    pre-training", 2025; their code with its default options, but for the 1e-6 that it
    adds to the norm it divides by.

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
        usual = mean + z_thresh**2 * deviation / jnp.where(outlier, z, 1)
        fed = jnp.where(outlier, usual, norm)
        # Mean and deviation of t norms from those of t - 1, all with the same weight;
        # afterwards moving averages. The squares of large norms would not fit.
        weight = jnp.where(starting, 1 / t, 1 - alpha)
        new_mean = mean + weight * (fed - mean)
        share = jnp.where(starting, 1 - 1 / t, 1)
        spread = jnp.sqrt(weight * share) * jnp.abs(
            fed - jnp.where(starting, mean, new_mean)
        )
        new_deviation = jnp.hypot(jnp.sqrt(1 - weight) * deviation, spread)
        bound = fed if max_norm is None else jnp.minimum(fed, max_norm)
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
