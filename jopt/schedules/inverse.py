"""Decays without an end: inverse powers of the step.

They continue as long as the training, ever more slowly, so that it can stop or cool
down (`polynomial_schedule`, `warmup_stable_decay`) at any step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.values import arguments


@schedule
def inverse_time_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    staircase: bool = False,
) -> ramp.Function:
    """Harmonic decay, Keras's InverseTimeDecay.

        init_value / (1 + decay_rate t / transition_steps)

    With ``transition_steps=1`` it is the argument ``decay`` of Keras and ``lr_decay``
    of torch's Adagrad.

    Args:
      init_value: The value at step 0.
      transition_steps: Number of steps to which ``decay_rate`` refers, > 0.
      decay_rate: Rate of the decay, >= 0.
      staircase: Whether to round ``t / transition_steps`` down: a staircase instead of
        a curve.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.inverse_time_decay(1.0, 1, 1.0)(jnp.array([0, 1, 3, 7]))
    Array([1.   , 0.5  , 0.25 , 0.125], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.nonnegative(decay_rate=decay_rate)
    arguments.at_least(1, transition_steps=transition_steps)

    def function(count):
        x = _quotient(ramp.since(count), transition_steps, staircase)
        return init_value / (1 + decay_rate * x)

    return function


@schedule
def inverse_sqrt_schedule(
    init_value: float, timescale: int, transition_begin: int = 0
) -> ramp.Function:
    """Inverse square root decay, without an end.

        init_value / sqrt(1 + t / timescale)

    Args:
      init_value: The value up to ``transition_begin``.
      timescale: Time scale in steps, > 0; the value halves after 3 of them.
      transition_begin: The step from which ``t`` counts, >= 0. If it equals
        ``timescale``, the schedule is T5's ``1 / sqrt(max(count, timescale))``, times a
        constant.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    Vaswani et al., "Attention is all you need", 2017; see `warmup_inverse_sqrt`.

    >>> import jopt
    >>> jopt.inverse_sqrt_schedule(1.0, 5)(jnp.array([0, 15, 40]))
    Array([1.        , 0.5       , 0.33333334], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.at_least(1, timescale=timescale)
    arguments.at_least(0, transition_begin=transition_begin)

    def function(count):
        x = _quotient(ramp.since(count, transition_begin), timescale)
        return init_value / jnp.sqrt(1 + x)

    return function


@schedule
def power_schedule(
    init_value: float, timescale: int, exponent: float, transition_begin: int = 0
) -> ramp.Function:
    """Decay by an inverse power, without an end.

        init_value (1 + t / timescale)^-exponent

    With ``transition_begin=timescale`` it is a power of the step itself, bounded above:
    ``init_value max(1, count / timescale)^-exponent``, the Power scheduler, whose
    exponent is 0.51. Exponent 0.5 is `inverse_sqrt_schedule`, exponent 1
    `inverse_time_decay`.

    Args:
      init_value: The value up to ``transition_begin``.
      timescale: Time scale in steps, > 0.
      exponent: Power of the decay, > 0.
      transition_begin: The step from which ``t`` counts, >= 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    Shen et al., "Power scheduler: a batch size and token number agnostic learning rate
    scheduler", 2024.

    >>> import jopt
    >>> jopt.power_schedule(1.0, 5, 2.0, transition_begin=5)(jnp.array([0, 5, 10, 20]))
    Array([1.    , 1.    , 0.25  , 0.0625], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.at_least(1, timescale=timescale)
    arguments.positive(exponent=exponent)
    arguments.at_least(0, transition_begin=transition_begin)

    def function(count):
        x = _quotient(ramp.since(count, transition_begin), timescale)
        return init_value * (1 + x) ** -exponent

    return function


def _quotient(t: jax.Array, steps: int, whole: bool = False) -> jax.Array:
    """Return ``t / steps``, or its whole part."""
    if whole:
        return ramp.to_float(ramp.periods(t, steps)[0])
    return ramp.to_float(t) / float(steps)
