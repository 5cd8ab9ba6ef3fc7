"""Schedules for averages of the parameters.

`swa_schedule` is the learning rate for `jopt.params_mean` or `jopt.params_lawa`;
`ema_warmup_schedule` is the decay of `jopt.params_ema`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.tree import scalar_dtype
from jopt.values import arguments
from jopt.values.arguments import text_of


@schedule
def swa_schedule(
    schedule: Callable[[Any], Any],
    start: int,
    swa_lr: float,
    anneal_steps: int = 10,
    anneal_strategy: Literal["cos", "linear"] = "cos",
) -> ramp.Function:
    """Follow a schedule up to a step, then anneal to the constant rate of an average.

    Args:
      schedule: A schedule, or any function of the integer step.
      start: The last step of ``schedule``, where the average starts; >= 0.
      swa_lr: The value from step ``start + anneal_steps`` on, >= 0. Choose it higher
        than a usual final rate, so that the parameters keep moving around the minimum.
      anneal_steps: Number of steps between the two values, >= 1.
      anneal_strategy: ``"cos"`` for half a cosine or ``"linear"`` for a line.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.
      TypeError: ``schedule`` is not a function.

    torch's SWALR, taking over from another scheduler after step ``start``. Izmailov,
    Podoprikhin, Garipov, Vetrov & Wilson, "Averaging weights leads to wider optima and
    better generalization", 2018.

    >>> import jopt
    >>> decay = jopt.linear_schedule(1.0, 0.0, 4)
    >>> jopt.swa_schedule(decay, 2, 1.0, 4, "linear")(jnp.arange(7))
    Array([1.   , 0.75 , 0.5  , 0.625, 0.75 , 0.875, 1.   ], dtype=float32)
    """
    if not callable(schedule):
        raise TypeError(
            f"schedule must be a function of the step, got {text_of(schedule)}. For a "
            "number, use jopt.constant_schedule(number)."
        )
    arguments.function_of_step("schedule", schedule)
    arguments.at_least(0, start=start)
    arguments.at_least(1, anneal_steps=anneal_steps)
    arguments.nonnegative(swa_lr=swa_lr)
    shapes = {"cos": ramp.half_cosine, "linear": ramp.linear}
    arguments.one_of(shapes, anneal_strategy=anneal_strategy)
    shape = shapes[anneal_strategy]

    def function(count):
        weights = shape(*ramp.shares(count, start, start + anneal_steps))
        # Clipped: the schedule need not be defined after its last step.
        info = jnp.finfo if ramp.is_float(count) else jnp.iinfo
        last = min(start, info(count.dtype).max)
        value = schedule(jnp.clip(count, 0, jnp.asarray(last, count.dtype)))
        return jnp.asarray(value, scalar_dtype()) * weights[0] + swa_lr * weights[1]

    return function


@schedule
def ema_warmup_schedule(
    decay: float,
    init_value: float = 0.1,
    transition_steps: int = 10,
    power: float = 1.0,
) -> ramp.Function:
    """The decay of a moving average whose memory grows with the step.

        min(decay, 1 - (1 - init_value) (1 + t / transition_steps)^-power)

    The average covers a fraction of the steps so far, so it soon forgets the initial
    parameters. The defaults are TensorFlow's ``min(decay, (1 + t) / (10 + t))``; timm
    and diffusers use ``init_value=0, transition_steps=1, power=2/3``, which reaches
    0.999 after 31,622 steps.

    Args:
      decay: The largest value, in [0, 1).
      init_value: The value at step 0, in [0, 1).
      transition_steps: Time scale in steps, > 0; larger is slower.
      power: Exponent, > 0; larger is faster.

    Returns:
      A schedule for the ``decay`` of `jopt.params_ema`.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.ema_warmup_schedule(0.5)(jnp.array([0, 2, 5, 100])).round(3)
    Array([0.1 , 0.25, 0.4 , 0.5 ], dtype=float32)
    """
    arguments.decay_rate(decay=decay, init_value=init_value)
    arguments.at_least(1, transition_steps=transition_steps)
    arguments.positive(power=power)
    log1p = jnp.log1p if arguments.known(init_value) is None else math.log1p

    def function(count):
        log_growth = jnp.log1p(ramp.to_float(ramp.since(count)) / transition_steps)
        # expm1, because 1 minus a power near 1 would cancel in the first steps.
        value = -jnp.expm1(log1p(-init_value) - power * log_growth)
        return jnp.minimum(decay, value)

    return function
