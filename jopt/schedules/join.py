"""Schedules in sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.values import arguments
from jopt.values.arguments import text_of


@schedule
def join_schedules(
    schedules: Sequence[Callable[[Any], Any]], boundaries: Sequence[int]
) -> ramp.Function:
    """Schedules in sequence, each counting from its own beginning.

    Args:
      schedules: Schedules, or any functions of the integer step. Before its first step,
        a function is evaluated at step 0.
      boundaries: The first step of each schedule except the first: one fewer than
        ``schedules``, >= 0 and increasing.

    Returns:
      A schedule.

    Raises:
      ValueError: The boundaries do not increase, or there is not one fewer of them than
        schedules.
      TypeError: A schedule is not a function.

    >>> import jopt
    >>> warmup = jopt.linear_schedule(0.0, 1.0, 2)
    >>> decay = jopt.linear_schedule(1.0, 0.0, 4)
    >>> jopt.join_schedules([warmup, decay], [2])(jnp.arange(7))
    Array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.25, 0.  ], dtype=float32)
    """
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            f"boundaries must be one fewer than schedules, got {len(boundaries)} "
            f"boundaries for {len(schedules)} schedules"
        )
    for i, part in enumerate(schedules):
        if not callable(part):
            raise TypeError(
                f"schedules[{i}] must be a function of the step, got {text_of(part)}. "
                "For a number, use jopt.constant_schedule(number)."
            )
    begins = arguments.increasing("boundaries", boundaries)
    later = [
        _from(begin, part) for begin, part in zip(begins, schedules[1:], strict=True)
    ]
    return ramp.pieces([_from(0, schedules[0]), *later], begins)


def _from(begin: int, function: ramp.Function) -> ramp.Function:
    def shifted(count):
        steps = ramp.since(count, begin)
        if jnp.issubdtype(count.dtype, jnp.signedinteger):
            # A user's function may subtract: unsigned steps would wrap around.
            steps = steps.astype(f"int{steps.dtype.itemsize * 8}")
        return function(steps)

    return shifted
