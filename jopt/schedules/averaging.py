"""Schedules for averages of the parameters.

`swa_schedule` is the learning rate while `jopt.params_mean` or `jopt.params_lawa` takes
its parameters; `ema_warmup_schedule` is the decay of `jopt.params_ema`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.tree import scalar_dtype
from jopt.values import arguments


@schedule
def swa_schedule(
    schedule: Callable[[Any], Any],
    start: int,
    swa_lr: float,
    anneal_steps: int = 10,
    anneal_strategy: str = "cos",
) -> ramp.Function:
    """A schedule up to a step, and from there to the constant rate of an average.

    Args:
      schedule: A schedule, or another function of the integer step.
      start: The last step that it is asked for, >= 0: where the average starts.
      swa_lr: The value from step ``start + anneal_steps`` on, >= 0; higher than a
        schedule would end at, so that the parameters keep moving around the minimum.
      anneal_steps: How many steps the way takes, >= 1.
      anneal_strategy: ``"cos"`` or ``"linear"``.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.
      TypeError: ``schedule`` is not a function.

    torch's SWALR that takes over from another scheduler after step ``start``. Izmailov,
    Podoprikhin, Garipov, Vetrov & Wilson, "Averaging weights leads to wider optima and
    better generalization", 2018.

    >>> import jopt
    >>> decay = jopt.linear_schedule(1.0, 0.0, 4)
    >>> jopt.swa_schedule(decay, 2, 1.0, 4, "linear")(jnp.arange(7))
    Array([1.   , 0.75 , 0.5  , 0.625, 0.75 , 0.875, 1.   ], dtype=float32)
    """
    if not callable(schedule):
        raise TypeError(
            f"schedule must be a function of the step, got {schedule!r}. For a number, "
            "use jopt.constant_schedule(number)."
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
        last = min(start, jnp.iinfo(count.dtype).max)
        before = schedule(jnp.clip(count, 0, jnp.asarray(last, count.dtype)))
        return jnp.asarray(before, scalar_dtype()) * weights[0] + swa_lr * weights[1]

    return function


@schedule
def ema_warmup_schedule(
    decay: float,
    init_value: float = 0.1,
    transition_steps: int = 10,
    power: float = 1.0,
) -> ramp.Function:
    """The decay of an average that is short at first.

        min(decay, 1 - (1 - init_value) (1 + t / transition_steps)^-power)

    So the average covers a share of the steps so far, and early parameters are soon
    forgotten. The defaults are TensorFlow's ``min(decay, (1 + t) / (10 + t))``; timm
    and diffusers have ``init_value=0, transition_steps=1, power=2/3``, which reaches
    0.999 after 31,622 steps.

    Args:
      decay: The largest value, in [0, 1).
      init_value: The value at step 0, in [0, 1).
      transition_steps: > 0; the larger, the slower.
      power: > 0; the larger, the faster.

    Returns:
      A schedule, for the ``decay`` of `jopt.params_ema`.

    Raises:
      ValueError: A number is out of its range.

    >>> import jopt
    >>> jopt.ema_warmup_schedule(0.5)(jnp.array([0, 2, 5, 100])).round(3)
    Array([0.1 , 0.25, 0.4 , 0.5 ], dtype=float32)
    """
    arguments.decay_rate(decay=decay, init_value=init_value)
    arguments.at_least(1, transition_steps=transition_steps)
    arguments.positive(power=power)

    def function(count):
        grown = jnp.log1p(ramp.to_float(ramp.since(count)) / transition_steps)
        # 1 minus a rounded power would be all error while little is gone.
        gone = -jnp.expm1(math.log1p(-init_value) - power * grown)
        return jnp.minimum(decay, gone)

    return function
