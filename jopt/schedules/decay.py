"""Monotone schedules with an end: constant, polynomial, rational, exponential.

All count from 0, the first update, and reach their end value exactly. A polynomial of
power 1, a straight line to 0, is the usual choice for fine-tuning.
"""

from __future__ import annotations

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.values import arguments


@schedule
def constant_schedule(value: float) -> ramp.Function:
    """The same value at every step.

    Args:
      value: The value at every step.

    Returns:
      A schedule.

    Raises:
      ValueError: ``value`` is not finite.

    >>> import jopt
    >>> jopt.constant_schedule(0.1)(jnp.arange(3))
    Array([0.1, 0.1, 0.1], dtype=float32)
    """
    arguments.finite(value=value)
    return ramp.constant(value)


@schedule
def linear_schedule(
    init_value: float,
    end_value: float,
    transition_steps: int,
    transition_begin: int = 0,
) -> ramp.Function:
    """A straight line: `polynomial_schedule` with power 1.

        init_value (1 - x) + end_value x,  x = t / transition_steps, up to 1

    Args:
      init_value: The value up to ``transition_begin``.
      end_value: The value from ``transition_begin + transition_steps`` on.
      transition_steps: Number of steps between the two values, > 0.
      transition_begin: The step from which ``t`` counts, >= 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.linear_schedule(1.0, 0.0, 4)(jnp.arange(6))
    Array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ], dtype=float32)
    """
    return polynomial_schedule(
        init_value, end_value, 1.0, transition_steps, transition_begin
    )


@schedule
def polynomial_schedule(
    init_value: float,
    end_value: float,
    power: float,
    transition_steps: int,
    transition_begin: int = 0,
    *,
    cycle: bool = False,
) -> ramp.Function:
    """Move from one value to another along a power of the remaining share.

        end_value + (init_value - end_value) (1 - x)^power,
        x = t / transition_steps, up to 1

    Args:
      init_value, end_value: See `linear_schedule`.
      power: Exponent, > 0. Above 1 most of the change comes early, below 1 late. For a
        decay after a plateau (with ``transition_begin``), 1 and 1.2 are usual.
      transition_steps, transition_begin: See `linear_schedule`.
      cycle: Whether to stretch ``transition_steps`` to its next multiple that is not
        below ``t``, as Keras does, instead of staying at the end value. The value jumps
        up after each multiple, less each time.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.polynomial_schedule(1.0, 0.0, 2.0, 4)(jnp.arange(6))
    Array([1.    , 0.5625, 0.25  , 0.0625, 0.    , 0.    ], dtype=float32)
    >>> jopt.polynomial_schedule(1.0, 0.0, 1.0, 2, cycle=True)(jnp.arange(6))
    Array([1.        , 0.5       , 0.        , 0.25      , 0.        ,
           0.16666667], dtype=float32)
    """
    arguments.finite(init_value=init_value, end_value=end_value)
    arguments.positive(power=power)
    _check_transition(transition_steps, transition_begin)
    shape = ramp.polynomial(power)
    if not cycle:
        end = transition_begin + transition_steps
        return ramp.ramp(init_value, end_value, transition_begin, end, shape)

    def stretched(count):
        t = ramp.since(count, transition_begin)
        periods, offset, to_go = ramp.periods(t, transition_steps)
        # A multiple of transition_steps ends a stretch, but step 0 only begins one.
        at_end = (offset == 0) & (t > 0)
        length = (ramp.to_float(periods) + jnp.where(at_end, 0, 1)) * float(
            transition_steps
        )
        to_go = jnp.where(at_end, 0, to_go)
        weights = shape(to_go / length, ramp.to_float(t) / length)
        return init_value * weights[0] + end_value * weights[1]

    return stretched


@schedule
def rex_schedule(
    init_value: float,
    end_value: float,
    transition_steps: int,
    transition_begin: int = 0,
) -> ramp.Function:
    """REX: a decay that is slow at first, for runs with few steps.

        end_value + (init_value - end_value) (1 - x) / (1 - x / 2),
        x = t / transition_steps, up to 1

    Args:
      init_value, end_value, transition_steps, transition_begin: See `linear_schedule`.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    Chen, Wolfe & Kyrillidis, "REX: revisiting budgeted training with an improved
    schedule", 2022.

    >>> import jopt
    >>> jopt.rex_schedule(1.0, 0.0, 3)(jnp.arange(5))
    Array([1. , 0.8, 0.5, 0. , 0. ], dtype=float32)
    """
    arguments.finite(init_value=init_value, end_value=end_value)
    _check_transition(transition_steps, transition_begin)
    end = transition_begin + transition_steps
    return ramp.ramp(init_value, end_value, transition_begin, end, ramp.rational)


@schedule
def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> ramp.Function:
    """Multiply by ``decay_rate`` every ``transition_steps`` steps.

        init_value decay_rate^(t / transition_steps)

    TensorFlow's ``natural_exp_decay`` has the rate ``math.exp(-decay_rate)``.

    Args:
      init_value: See `linear_schedule`.
      transition_steps: Number of steps that multiply the value by ``decay_rate``, > 0.
      decay_rate: Factor, > 0; above 1 the value grows.
      transition_begin: See `linear_schedule`.
      staircase: Whether to round the exponent down: a staircase instead of a curve.
      end_value: Bound at which the value stays; None sets no bound.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or the value moves away from
        ``end_value``.

    >>> import jopt
    >>> jopt.exponential_decay(1.0, 2, 0.5, staircase=True)(jnp.arange(6))
    Array([1.  , 1.  , 0.5 , 0.5 , 0.25, 0.25], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.positive(decay_rate=decay_rate)
    _check_transition(transition_steps, transition_begin)
    rate, first, last = map(arguments.known, (decay_rate, init_value, end_value))
    if None not in (rate, first, last):
        falls = rate < 1
        if last > first if falls else last < first:
            raise ValueError(
                f"end_value must be {'<=' if falls else '>='} init_value with "
                f"decay_rate={decay_rate}, got end_value={end_value}, "
                f"init_value={init_value}"
            )

    def function(count):
        t = ramp.since(count, transition_begin)
        periods, offset, _ = ramp.periods(t, transition_steps)
        # Two powers: in one sum the fraction would lose digits next to the whole part.
        value = init_value * ramp.power(decay_rate, ramp.to_float(periods))
        if not staircase:
            x = ramp.to_float(offset) / float(transition_steps)
            value = value * ramp.power(decay_rate, x)
        if end_value is None:
            return value
        above, below = jnp.maximum(value, end_value), jnp.minimum(value, end_value)
        return jnp.where(decay_rate < 1, above, below)

    return function


def _check_transition(transition_steps: int, transition_begin: int) -> None:
    if transition_steps < 1:
        raise ValueError(
            f"transition_steps must be >= 1, got transition_steps={transition_steps}. "
            "For no transition at all, use jopt.constant_schedule(value)"
        )
    arguments.at_least(0, transition_begin=transition_begin)
