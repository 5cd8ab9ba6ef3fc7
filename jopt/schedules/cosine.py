"""Half a cosine down, once or with restarts: SGDR.

Slow at both ends and fast in between; Loshchilov & Hutter, "SGDR: Stochastic gradient
descent with warm restarts", 2017. Most large models were trained with a single decay to
0 or a tenth of the peak, after a warmup; see ``warmup.py``. The code computes a squared
sine of the remaining share, so that the end is exact and the steps before it keep all
their digits.
"""

from __future__ import annotations

import decimal
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.schedules.join import join_schedules
from jopt.schedules.warmup import warmup_cosine_decay_schedule
from jopt.tree import scalar_dtype
from jopt.values import arguments
from jopt.values.arguments import text_of


@schedule
def cosine_decay_schedule(
    init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0
) -> ramp.Function:
    """Half a cosine, from ``init_value`` to a fraction of it.

        init_value (alpha + (1 - alpha) ((1 + cos(pi x)) / 2)^exponent),
        x = t / decay_steps, up to 1

    Args:
      init_value: The value at step 0.
      decay_steps: The step that reaches the end value, > 0.
      alpha: The end value as a fraction of ``init_value``, >= 0.
      exponent: Power of the half cosine, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.cosine_decay_schedule(1.0, 3, alpha=0.1)(jnp.arange(5))
    Array([1.   , 0.775, 0.325, 0.1  , 0.1  ], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.at_least(1, decay_steps=decay_steps)
    arguments.nonnegative(alpha=alpha)
    arguments.positive(exponent=exponent)
    shape = ramp.cosine(exponent)
    return ramp.ramp(init_value, alpha * init_value, 0, decay_steps, shape)


@schedule
def cosine_decay_restarts(
    init_value: float,
    first_decay_steps: int,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
) -> ramp.Function:
    """Half a cosine with restarts, Keras's CosineDecayRestarts.

        init_value (alpha + (1 - alpha) m_mul^i (1 + cos(pi x)) / 2)

    ``i`` counts the restarts so far. ``x`` is the elapsed share of the current decay,
    which takes ``first_decay_steps t_mul^i`` steps; that need not be a whole number.

    Args:
      init_value: The value at step 0.
      first_decay_steps: The step of the first restart, > 0.
      t_mul: Factor of the decay's length at each restart: 1, or >= 1.001.
      m_mul: Factor of the decay's height at each restart, >= 0.
      alpha: The value at the end of a decay as a fraction of ``init_value``, >= 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.cosine_decay_restarts(1.0, 2, m_mul=0.5)(jnp.array([0, 1, 2, 4, 6, 10]))
    Array([1.   , 0.5  , 0.5  , 0.25 , 0.25 , 0.125], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.at_least(1, first_decay_steps=first_decay_steps)
    arguments.untraced(t_mul=t_mul)
    if not (t_mul == 1 or 1.001 <= t_mul < math.inf):
        raise ValueError(f"t_mul must be 1 or >= 1.001 and finite, got t_mul={t_mul}")
    arguments.nonnegative(m_mul=m_mul, alpha=alpha)

    # Both return the number of restarts and the remaining share of the current decay.
    def equal(steps):
        restarts, _, to_go = ramp.periods(steps, first_decay_steps)
        return restarts, to_go / float(first_decay_steps)

    def growing(steps):
        # A table of all decays within the step counter's range: float32 logarithms
        # would miss restarts by a step.
        ends, parts, lengths = _decays(first_decay_steps, t_mul, ramp.largest(steps))
        restarts = ramp.count_passed(steps, ends[:-1], "right")
        end = jnp.asarray(np.array(ends, steps.dtype))[restarts]
        part, length = jnp.asarray([parts, lengths], scalar_dtype())[:, restarts]
        return restarts, (ramp.to_float(end - steps) + part) / length

    def function(count):
        steps = ramp.nonnegative(count)
        restarts, remaining = (equal if t_mul == 1 else growing)(steps)
        height = (1 - alpha) * ramp.power(m_mul, ramp.to_float(restarts))
        weight, _ = ramp.half_cosine(remaining, 1 - remaining)
        return init_value * (height * weight + alpha)

    return function


@schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> ramp.Function:
    """Several `warmup_cosine_decay_schedule` in sequence.

    Args:
      cosine_kwargs: A dict of keyword arguments for each of them. Each lasts for its
        ``decay_steps``, which include its warmup.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or ``cosine_kwargs`` is empty.
      TypeError: ``cosine_kwargs`` is not a list of dicts, or an argument is missing.

    >>> import jopt
    >>> cycle = {"init_value": 0.0, "warmup_steps": 1, "decay_steps": 3}
    >>> peaks = [{"peak_value": 1.0, **cycle}, {"peak_value": 0.5, **cycle}]
    >>> jopt.sgdr_schedule(peaks)(jnp.arange(7))
    Array([0.  , 1.  , 0.5 , 0.  , 0.5 , 0.25, 0.  ], dtype=float32)
    """
    is_list = isinstance(cosine_kwargs, Sequence)
    if not is_list or not all(isinstance(x, Mapping) for x in cosine_kwargs):
        raise TypeError(
            "cosine_kwargs must be a list of dicts, the arguments of "
            f"warmup_cosine_decay_schedule, got {text_of(cosine_kwargs)}"
        )
    if not cosine_kwargs:
        raise ValueError("cosine_kwargs must be one or more dicts, got none")
    cycles = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    ends = itertools.accumulate(int(x["decay_steps"]) for x in cosine_kwargs[:-1])
    return join_schedules(cycles, list(ends))


@functools.cache
def _decays(
    first: int, t_mul: float, largest: int
) -> tuple[list[int], list[float], list[float]]:
    """Return for each decay the step after it, its end minus that step, and its length.

    Computed in decimals: 1.1 and 1000 should restart at 2100 and 3310, but powers of
    the float 1.1 come out slightly later.
    """
    ends, parts, lengths = [], [], []
    with decimal.localcontext(prec=60):
        growth = decimal.Decimal(repr(t_mul))
        length, end = decimal.Decimal(first), decimal.Decimal(0)
        while end <= largest:
            end += length
            ends.append(min(int(end.to_integral_value(decimal.ROUND_CEILING)), largest))
            parts.append(float(end - ends[-1]))
            lengths.append(float(length))
            length *= growth
    return ends, parts, lengths
