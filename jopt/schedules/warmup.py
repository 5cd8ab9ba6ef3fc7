"""Linear warmup, then a decay.

Adam's second moments are poor estimates at first, and networks with normalization or
attention need small steps until they have settled. A warmup of 1 to 10 percent of all
steps is usual. The schedule reaches its peak exactly at ``warmup_steps`` and, if that
is 0, starts there.

There are two conventions: optax's, where ``decay_steps`` includes the warmup, and
factories that take ``total_steps``. The end value belongs to step ``total_steps``, one
after the last step of the training.
"""

from __future__ import annotations

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.schedules.decay import exponential_decay
from jopt.schedules.inverse import inverse_sqrt_schedule
from jopt.values import arguments


@schedule
def warmup_constant_schedule(
    init_value: float, peak_value: float, warmup_steps: int
) -> ramp.Function:
    """Linear warmup, then constant.

    Args:
      init_value: The value at step 0.
      peak_value: The value from ``warmup_steps`` on.
      warmup_steps: Number of steps of the warmup, >= 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.warmup_constant_schedule(0.0, 1.0, 2)(jnp.arange(4))
    Array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    return warmup(init_value, peak_value, warmup_steps, ramp.constant(peak_value))


@schedule
def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> ramp.Function:
    """Linear warmup, then half a cosine, with optax's arguments; see `warmup_cosine`.

    Args:
      init_value: The value at step 0.
      peak_value: The value at ``warmup_steps``.
      warmup_steps: Number of steps of the warmup, >= 0.
      decay_steps: The step that reaches the end value. It includes the warmup, so the
        cosine takes ``decay_steps - warmup_steps`` steps; Keras's CosineDecay does not
        include it.
      end_value: The value from ``decay_steps`` on.
      exponent: Power of the half cosine, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or no steps remain after the warmup.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.warmup_cosine_decay_schedule(0.0, 1.0, 2, 5, 0.1)(jnp.arange(6))
    Array([0.   , 0.5  , 1.   , 0.775, 0.325, 0.1  ], dtype=float32)
    """
    arguments.finite(end_value=end_value)
    arguments.positive(exponent=exponent)
    arguments.below("decay_steps", decay_steps, warmup_steps=warmup_steps)
    shape = ramp.cosine(exponent)
    decay = ramp.ramp(peak_value, end_value, warmup_steps, decay_steps, shape)
    return warmup(init_value, peak_value, warmup_steps, decay)


@schedule
def warmup_exponential_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> ramp.Function:
    """Linear warmup, then `exponential_decay`.

    Args:
      init_value, peak_value, warmup_steps: See `warmup_cosine_decay_schedule`.
      transition_steps, decay_rate: See `exponential_decay`.
      transition_begin: Number of steps to stay at the peak, >= 0.
      staircase, end_value: See `exponential_decay`.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or the value moves away from
        ``end_value``.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.warmup_exponential_decay_schedule(0.0, 1.0, 2, 1, 0.5)(jnp.arange(5))
    Array([0.  , 0.5 , 1.  , 0.5 , 0.25], dtype=float32)
    """
    arguments.at_least(0, warmup_steps=warmup_steps, transition_begin=transition_begin)
    begin = warmup_steps + transition_begin
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, begin, staircase, end_value
    )
    return warmup(init_value, peak_value, warmup_steps, decay)


@schedule
def warmup_cosine(
    peak_value: float,
    *,
    warmup_steps: int,
    total_steps: int,
    init_value: float = 0.0,
    end_value: float = 0.0,
) -> ramp.Function:
    """Linear warmup, then half a cosine.

    Args:
      peak_value: The value at ``warmup_steps``.
      warmup_steps: Number of steps of the warmup, >= 0 and below ``total_steps``.
      total_steps: The step that reaches the end value: all steps of the training.
      init_value: The value at step 0.
      end_value: The value from ``total_steps`` on.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or no steps remain after the warmup.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.warmup_cosine(1.0, warmup_steps=2, total_steps=5)(jnp.arange(6))
    Array([0.  , 0.5 , 1.  , 0.75, 0.25, 0.  ], dtype=float32)
    """
    arguments.finite(end_value=end_value)
    arguments.below("total_steps", total_steps, warmup_steps=warmup_steps)
    decay = ramp.ramp(
        peak_value, end_value, warmup_steps, total_steps, ramp.half_cosine
    )
    return warmup(init_value, peak_value, warmup_steps, decay)


@schedule
def warmup_linear(
    peak_value: float,
    *,
    warmup_steps: int,
    total_steps: int,
    init_value: float = 0.0,
    end_value: float = 0.0,
) -> ramp.Function:
    """Linear warmup, then a straight line down.

    Args:
      peak_value, warmup_steps, total_steps: See `warmup_cosine`.
      init_value, end_value: See `warmup_cosine`.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or no steps remain after the warmup.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.warmup_linear(1.0, warmup_steps=2, total_steps=6)(jnp.arange(7))
    Array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.25, 0.  ], dtype=float32)
    """
    arguments.finite(end_value=end_value)
    arguments.below("total_steps", total_steps, warmup_steps=warmup_steps)
    decay = ramp.ramp(peak_value, end_value, warmup_steps, total_steps)
    return warmup(init_value, peak_value, warmup_steps, decay)


@schedule
def warmup_inverse_sqrt(
    peak_value: float,
    *,
    warmup_steps: int,
    init_value: float = 0.0,
    timescale: int | None = None,
) -> ramp.Function:
    """Linear warmup, then `inverse_sqrt_schedule`, which needs no total.

        peak_value / sqrt(1 + (t - warmup_steps) / timescale)

    By default this is ``peak_value sqrt(warmup_steps / t)``, the schedule of the
    Transformer, whose peak was ``(d_model warmup_steps)^-0.5``.

    Args:
      peak_value, warmup_steps, init_value: See `warmup_cosine_decay_schedule`.
      timescale: Time scale of the decay in steps, > 0; None means ``warmup_steps``.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or ``warmup_steps`` is 0 and
        ``timescale`` is None.

    Vaswani et al., "Attention is all you need", 2017.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.warmup_inverse_sqrt(1.0, warmup_steps=4)(jnp.array([0, 2, 4, 16, 64]))
    Array([0.  , 0.5 , 1.  , 0.5 , 0.25], dtype=float32)
    """
    arguments.at_least(0, warmup_steps=warmup_steps)
    if timescale is None:
        if warmup_steps == 0:
            raise ValueError("timescale must be given with warmup_steps=0")
        timescale = warmup_steps
    decay = inverse_sqrt_schedule(peak_value, timescale, warmup_steps)
    return warmup(init_value, peak_value, warmup_steps, decay)


def warmup(
    init_value: float, peak_value: float, warmup_steps: int, then: ramp.Function
) -> ramp.Function:
    """Return a straight line up to the peak, followed by ``then``."""
    arguments.finite(init_value=init_value, peak_value=peak_value)
    arguments.at_least(0, warmup_steps=warmup_steps)
    if warmup_steps == 0:
        return then
    rise = ramp.ramp(init_value, peak_value, 0, warmup_steps)
    return ramp.pieces([rise, then], [warmup_steps])
