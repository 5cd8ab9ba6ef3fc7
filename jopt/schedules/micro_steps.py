"""Schedules that count gradients, or epochs, where an optimizer counts steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.values import arguments


@schedule
def micro_step_schedule(schedule_fn: Callable[[Any], Any], steps: int) -> ramp.Function:
    """A schedule of accumulated gradients, read by an optimizer that counts steps.

        value(t) = schedule_fn(steps t + steps - 1)

    Inside `accumulate`, counts are of optimizer steps. Keras's schedules count the
    gradients of ``gradient_accumulation_steps``: step t is made when gradient
    ``steps t + steps - 1`` comes, and has that one's rate. Its optimizers' own t, in
    Adam's bias correction, is of steps.

    Args:
      schedule_fn: A schedule, or another function of the integer step.
      steps: How many gradients a step is made of, >= 1.

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
    most = (2**31 - steps) // steps  # beyond it, gradients cannot be counted

    def function(count):
        t = jnp.maximum(count, jnp.zeros_like(count)).astype(jnp.uint32)
        t = jnp.minimum(t, jnp.uint32(most)).astype(jnp.int32)
        return schedule_fn(steps * t + (steps - 1))

    return function


@schedule
def epoch_schedule(
    schedule_fn: Callable[[Any], Any], steps_per_epoch: int
) -> ramp.Function:
    """A schedule of epochs, read by an optimizer that counts steps.

        value(t) = schedule_fn(floor(t / steps_per_epoch))

    It stands still during an epoch, as where torch's ``scheduler.step()`` is called
    after each, or Keras's LearningRateScheduler.

    Args:
      schedule_fn: A schedule, or another function of the integer epoch, 0 at first.
      steps_per_epoch: How many steps an epoch has, >= 1.

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
        over, _, _ = ramp.periods(ramp.whole_steps(count), steps_per_epoch)
        signed = jnp.int64 if over.dtype == jnp.uint64 else jnp.int32
        last = over.dtype.type(jnp.iinfo(signed).max)
        return schedule_fn(jnp.minimum(over, last).astype(signed))

    return function
