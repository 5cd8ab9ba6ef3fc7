"""Powers of the factors that only torch allows: 0 and negative ones."""

from __future__ import annotations

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.values import arguments


@schedule
def signed_decay(
    init_value: float, transition_steps: int, decay_rate: float
) -> ramp.Function:
    """The staircase of `jopt.exponential_decay`, for a factor of 0 or below, too.

        init_value decay_rate^floor(t / transition_steps)

    Args:
      init_value: The value at step 0.
      transition_steps: Number of steps between two changes, > 0.
      decay_rate: The factor.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is not finite, or ``transition_steps`` is below 1.

    >>> [float(signed_decay(1.0, 1, -0.5)(t)) for t in range(4)]
    [1.0, -0.5, 0.25, -0.125]
    """
    arguments.finite(init_value=init_value, decay_rate=decay_rate)
    arguments.at_least(1, transition_steps=transition_steps)

    def function(count):
        steps = ramp.whole_steps(count)
        times, _, _ = ramp.periods(steps, transition_steps)
        size = ramp.power(abs(decay_rate), ramp.to_float(times))
        negative = (times % 2 == 1) & (decay_rate < 0)
        return init_value * jnp.where(negative, -size, size)

    return function
