"""Skipping steps whose gradient norm, or loss, is an outlier.

    z <- (x - mean) / (deviation + eps |mean|),   x = |G| or the loss
    a step with z > z_thresh is skipped; of the others, with w = max(1/n, 1 - decay):
    mean        <- (1 - w) mean + w x
    deviation^2 <- (1 - w) (deviation^2 + w (x - old mean)^2)

n counts the steps that the statistics are made of, so the first 1 / (1 - decay) of them
have equal weights. State: five scalars. Thresholds of 4 to 6 deviations are usual: of a
run that goes well, next to no step is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.around import VALUE, around
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.guards import all_finite, bad_steps, chosen, inner_init


class SkipSpikesState(NamedTuple):
    """State of `skip_spikes`."""

    seen: jax.Array  # int32 scalar, steps that mean and deviation are made of
    mean: jax.Array  # of the norms, or of the losses
    deviation: jax.Array  # their standard deviation
    skip_count: jax.Array  # int32 scalar, spikes in a row that were skipped
    total_skipped: jax.Array  # int32 scalar, all steps that were skipped
    inner_state: Any  # of the inner transformation
    metrics = ("mean", "deviation", "skip_count", "total_skipped")


@transformation
def skip_spikes(
    inner: GradientTransformation,
    of: str = "norm",
    z_thresh: ScalarOrSchedule = 6.0,
    decay: ScalarOrSchedule = 0.99,
    warmup_steps: int = 64,
    max_consecutive_skips: int = 10,
    *,
    eps: ScalarOrSchedule = 1e-6,
) -> GradientTransformation:
    """Leave out steps whose gradient norm or loss is far above what is usual.

    A step that is left out gives zero updates and leaves the inner state and the
    statistics as they are. So does one that is not finite, at any time.

    After ``max_consecutive_skips`` spikes in a row the next is no spike but a new level
    (other data, say): it is applied, and the statistics begin again with it.

    Args:
      inner: A transformation, usually the whole optimizer.
      of: ``"norm"``, the global norm of the updates that come in, or ``"value"``, the
        loss that each update is told. For both, wrap twice.
      z_thresh: How many deviations above the mean are a spike, > 0.
      decay: Of the statistics, in [0, 1).
      warmup_steps: How many steps the statistics need before a step can be a spike,
        >= 2.
      max_consecutive_skips: How many spikes in a row are skipped at most, >= 1.
      eps: The smallest deviation, as a share of the mean, >= 0: where x is all but
        constant, a rounding is no spike.

    Returns:
      A transformation; with ``of="value"`` its update needs ``value``.

    Raises:
      ValueError: A number is out of its range, or ``inner`` holds a dynamic loss scale.

    The rule of ``SkipStepOptimizer`` in OLMo-core (Allen Institute for AI, 2024), which
    has the mean of the last 128 steps, skipped ones included. After Chowdhery et al.,
    "PaLM: scaling language modeling with pathways", 2022, who skipped batches by hand.

    >>> import jopt
    >>> tx = jopt.skip_spikes(jopt.sgd(1.0), warmup_steps=3)
    >>> state = tx.init(jnp.ones(1))
    >>> for norm in [1.0, 1.1, 0.9, 50.0, 1.0]:
    ...     updates, state = tx.update(jnp.full(1, norm), state)
    ...     print(updates, state.total_skipped)
    [-1.] 0
    [-1.1] 0
    [-0.9] 0
    [0.] 1
    [-1.] 1
    """
    inner = as_transformation(inner, "skip_spikes: inner")
    arguments.one_of(("norm", "value"), of=of)
    arguments.positive(z_thresh=z_thresh)
    arguments.decay_rate(decay=decay)
    arguments.at_least(2, warmup_steps=warmup_steps)
    arguments.at_least(1, max_consecutive_skips=max_consecutive_skips)
    arguments.nonnegative(eps=eps)

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return SkipSpikesState(
            seen=zero,
            mean=scalar(0.0),
            deviation=scalar(0.0),
            skip_count=jnp.copy(zero),
            total_skipped=jnp.copy(zero),
            inner_state=inner_init("skip_spikes", inner, params),
        )

    def update(updates, state, params=None, **extra):
        value = extra.get("value")
        if value is not None:
            arguments.one_number("value", value)
        new, own = inner.update(updates, state.inner_state, params, **extra)
        x = scalar(value) if of == "value" else tree.norm(updates)
        # Of entries above 1e19 the norm is finite too, of NaN and infinity it is not.
        finite = all_finite(updates if of == "value" else x, value)

        level = z_thresh * (state.deviation + eps * jnp.abs(state.mean))
        spike = (state.seen >= warmup_steps) & (x - state.mean > level)
        renewed = spike & (state.skip_count >= max_consecutive_skips)
        good = finite & (renewed | ~spike)

        n = jnp.where(renewed, 1, tree.safe_increment(state.seen))
        w = jnp.maximum(1 / scalar(n), 1 - decay)
        w = jnp.where(n == 1, 1, w)
        away = jnp.where(n == 1, 0, x - state.mean)
        deviation = jnp.sqrt(1 - w) * jnp.hypot(state.deviation, jnp.sqrt(w) * away)
        in_a_row, total = bad_steps(good, state.skip_count, state.total_skipped)
        # What is not finite tells nothing about the level.
        in_a_row = jnp.where(finite, in_a_row, state.skip_count)

        new, own = chosen(good, (new, own), (None, state.inner_state))
        return new, SkipSpikesState(
            seen=jnp.where(good, n, state.seen),
            mean=jnp.where(good, (1 - w) * state.mean + w * x, state.mean),
            deviation=jnp.where(good, deviation, state.deviation),
            skip_count=in_a_row,
            total_skipped=total,
            inner_state=own,
        )

    required = VALUE.accepts if of == "value" else VALUE.requires
    return around(inner, init, update, also=VALUE._replace(requires=required))
