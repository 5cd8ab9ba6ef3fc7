"""Skipping of steps whose gradient norm or loss is an outlier.

    z <- (x - mean) / (deviation + eps |mean|),   x = |G| or the loss
    a step with z > z_thresh is skipped; in all others, with w = max(1/n, 1 - decay):
    mean        <- (1 - w) mean + w x
    deviation^2 <- (1 - w) (deviation^2 + w (x - old mean)^2)

n counts the steps in the statistics, so the first 1 / (1 - decay) of them have equal
weights. State: five scalars. Thresholds of 4 to 6 deviations are common: they skip next
to no step of a run that goes well.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.around import VALUE, around, both
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.fused import fused_update
from jopt.core.transformation import GradientTransformation
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.guards import all_finite, bad_steps, inner_init


class SkipSpikesState(NamedTuple):
    """State of `skip_spikes`."""

    seen: jax.Array  # int32 scalar, steps in the mean and the deviation
    mean: jax.Array  # float scalar, mean of the norms or losses
    deviation: jax.Array  # float scalar, their standard deviation
    skip_count: jax.Array  # int32 scalar, consecutive skipped spikes so far
    total_skipped: jax.Array  # int32 scalar, all skipped steps
    inner_state: Any  # state of the inner transformation
    metrics = ("mean", "deviation", "skip_count", "total_skipped")


@transformation
def skip_spikes(
    inner: GradientTransformation,
    of: Literal["norm", "value"] = "norm",
    z_thresh: ScalarOrSchedule = 6.0,
    decay: ScalarOrSchedule = 0.99,
    warmup_steps: int = 64,
    max_consecutive_skips: int = 10,
    *,
    eps: ScalarOrSchedule = 1e-6,
) -> GradientTransformation:
    """Skip steps whose gradient norm or loss is far above the usual.

    A skipped step returns zero updates and keeps the inner state and the statistics. A
    step that is not finite is always skipped.

    After ``max_consecutive_skips`` spikes in a row, the next one counts as a new level
    (other data, for example): it is applied, and the statistics restart with it.

    Args:
      inner: A transformation, usually the whole optimizer.
      of: ``"norm"`` for the global norm of the incoming updates, or ``"value"`` for the
        loss passed to ``update``. For both, wrap twice.
      z_thresh: Number of deviations above the mean that make a spike, > 0.
      decay: Decay of the statistics, in [0, 1).
      warmup_steps: Number of steps in the statistics before a step can be a spike,
        >= 2.
      max_consecutive_skips: The most spikes in a row that are skipped, >= 1.
      eps: The smallest deviation, as a fraction of the mean, >= 0; it keeps rounding
        errors in a nearly constant x from being spikes.

    Returns:
      A transformation; with ``of="value"``, ``update`` needs ``value``.

    Raises:
      ValueError: A number is out of range, or ``inner`` contains a dynamic loss scale.

    The rule follows ``SkipStepOptimizer`` in OLMo-core (Allen Institute for AI, 2024),
    which takes the mean of the last 128 steps, including skipped ones; after Chowdhery
    et al., "PaLM: scaling language modeling with pathways", 2022, who skipped batches
    by hand.

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

    def update(updates, state, params=None, *, take=None, adds=False, **extra):
        value = extra.get("value")
        if value is not None:
            arguments.one_number("value", value)
        x = scalar(value) if of == "value" else tree.norm(updates)
        # The norm is finite even for entries above 1e19, whose squares overflow, so it
        # shows NaN and infinity without another pass over the updates.
        finite = all_finite(updates if of == "value" else x, value)

        level = z_thresh * (state.deviation + eps * jnp.abs(state.mean))
        spike = (state.seen >= warmup_steps) & (x - state.mean > level)
        renewed = spike & (state.skip_count >= max_consecutive_skips)
        good = finite & (renewed | ~spike)

        n = jnp.where(renewed, 1, tree.safe_increment(state.seen))
        w = jnp.maximum(1 / scalar(n), 1 - decay)
        w = jnp.where(n == 1, 1, w)
        offset = jnp.where(n == 1, 0, x - state.mean)
        # hypot, because the squares of large losses or norms may overflow.
        deviation = jnp.sqrt(1 - w) * jnp.hypot(state.deviation, jnp.sqrt(w) * offset)
        in_a_row, total = bad_steps(good, state.skip_count, state.total_skipped)
        # A step that is not finite says nothing about the level, so it neither
        # continues nor ends a row of spikes.
        in_a_row = jnp.where(finite, in_a_row, state.skip_count)

        step = both(take, good)
        result, inner_state = fused_update(
            inner, updates, state.inner_state, params, extra, take=step, adds=adds
        )
        return result, SkipSpikesState(
            seen=jnp.where(good, n, state.seen),
            mean=jnp.where(good, (1 - w) * state.mean + w * x, state.mean),
            deviation=jnp.where(good, deviation, state.deviation),
            skip_count=in_a_row,
            total_skipped=total,
            inner_state=inner_state,
        )

    required = VALUE.accepts if of == "value" else VALUE.requires
    also = VALUE._replace(requires=required)
    return around(inner, init, update, SkipSpikesState, also=also, fused=True)
