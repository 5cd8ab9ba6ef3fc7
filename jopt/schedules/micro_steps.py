"""Schedules of gradients or epochs, for optimizers that count steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.values import arguments


@schedule
def micro_step_schedule(schedule_fn: Callable[[Any], Any], steps: int) -> ramp.Function:
    """Convert a schedule of accumulated gradients into one of optimizer steps.

        value(t) = schedule_fn(steps t + steps - 1)

    Inside `accumulate`, schedules count optimizer steps. In Keras, with
    ``gradient_accumulation_steps``, they count gradients: step t happens at gradient
    ``steps t + steps - 1`` and uses its rate. Keras's optimizers still count steps for
    Adam's bias correction.

    Args:
      schedule_fn: A schedule, or any function of the integer gradient count.
      steps: Number of gradients per step, >= 1.

    Returns:
      A schedule.

    Raises:
      ValueError: ``steps`` is below 1.

    >>> import jopt
    >>> rate = jopt.micro_step_schedule(jopt.linear_schedule(1.0, 0.0, 16), steps=4)
    >>> rate(jnp.arange(3))
    Array([0.8125, 0.5625, 0.3125], dtype=float32)
    >>> tx = jopt.accumulate(jopt.adam(rate), steps=4)
    """
    arguments.at_least(1, steps=steps)
    arguments.function_of_step("schedule_fn", schedule_fn)
    last = (2**31 - steps) // steps  # the gradient count of later steps overflows

    def function(count):
        t = jnp.maximum(count, jnp.zeros_like(count)).astype(jnp.uint32)
        t = jnp.minimum(t, jnp.uint32(last)).astype(jnp.int32)
        return schedule_fn(steps * t + (steps - 1))

    return function


@schedule
def epoch_schedule(
    schedule_fn: Callable[[Any], Any], steps_per_epoch: int
) -> ramp.Function:
    """Convert a schedule of epochs into one of optimizer steps.

        value(t) = schedule_fn(floor(t / steps_per_epoch))

    The value is constant during an epoch, as with torch's ``scheduler.step()`` after
    each epoch or with Keras's LearningRateScheduler.

    Args:
      schedule_fn: A schedule, or any function of the integer epoch, which starts at 0.
      steps_per_epoch: Number of steps per epoch, >= 1.

    Returns:
      A schedule.

    Raises:
      ValueError: ``steps_per_epoch`` is below 1.

    >>> import jopt
    >>> rate = jopt.epoch_schedule(jopt.exponential_decay(1.0, 1, 0.5), 2)
    >>> rate(jnp.arange(5))
    Array([1.  , 1.  , 0.5 , 0.5 , 0.25], dtype=float32)
    """
    arguments.at_least(1, steps_per_epoch=steps_per_epoch)
    arguments.function_of_step("schedule_fn", schedule_fn)

    def function(count):
        epoch, _, _ = ramp.periods(ramp.whole_steps(count), steps_per_epoch)
        # Signed, because a user's function may subtract.
        signed = jnp.int64 if epoch.dtype == jnp.uint64 else jnp.int32
        last = epoch.dtype.type(jnp.iinfo(signed).max)
        return schedule_fn(jnp.minimum(epoch, last).astype(signed))

    return function
