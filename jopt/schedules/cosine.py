"""Half a cosine down, once or with restarts: SGDR.

Slow at both ends and fast between; Loshchilov & Hutter, "SGDR: Stochastic gradient
descent with warm restarts", 2017. Once, to 0 or a tenth, after a warmup, is how most
large models were trained; see ``warmup.py``. It is computed as a squared sine of what
is left, so that the end is exact and the steps before it keep all their digits.
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


@schedule
def cosine_decay_schedule(
    init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0
) -> ramp.Function:
    """Half a cosine, from a value to a fraction of it.

        init_value (alpha + (1 - alpha) ((1 + cos(pi x)) / 2)^exponent),
        x = t / decay_steps, up to 1

    Args:
      init_value: The value at step 0.
      decay_steps: The step that the end is reached at, > 0.
      alpha: The end value as a fraction of ``init_value``, >= 0.
      exponent: > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.

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
    """Half a cosine again and again, Keras's CosineDecayRestarts.

        init_value (alpha + (1 - alpha) m_mul^i (1 + cos(pi x)) / 2)

    ``i`` counts the restarts so far. ``x`` is the share of the present decay that is
    over, which takes ``first_decay_steps t_mul^i`` steps, also if that is no whole
    number.

    Args:
      init_value: The value at step 0.
      first_decay_steps: The first restart, > 0.
      t_mul: How many times longer each decay is than the one before: 1, or >= 1.001.
      m_mul: What each restart multiplies the height by, >= 0.
      alpha: The value at the end of a decay as a fraction of ``init_value``, >= 0.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.

    >>> import jopt
    >>> jopt.cosine_decay_restarts(1.0, 2, m_mul=0.5)(jnp.array([0, 1, 2, 4, 6, 10]))
    Array([1.   , 0.5  , 0.5  , 0.25 , 0.25 , 0.125], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    arguments.at_least(1, first_decay_steps=first_decay_steps)
    if not (t_mul == 1 or 1.001 <= t_mul < math.inf):
        raise ValueError(f"t_mul must be 1 or >= 1.001 and finite, got t_mul={t_mul}")
    arguments.nonnegative(m_mul=m_mul, alpha=alpha)

    def equal(steps):
        over, _, to_go = ramp.periods(steps, first_decay_steps)
        return over, to_go / float(first_decay_steps)

    def growing(steps):
        ends, parts, lengths = _decays(first_decay_steps, t_mul, ramp.largest(steps))
        over = ramp.passed(steps, ends[:-1], "right")
        end = jnp.asarray(np.array(ends, steps.dtype))[over]
        part, length = jnp.asarray([parts, lengths], scalar_dtype())[:, over]
        return over, (ramp.to_float(end - steps) + part) / length

    def function(count):
        steps = ramp.whole_steps(count)
        over, left = (equal if t_mul == 1 else growing)(steps)
        height = (1 - alpha) * ramp.power(m_mul, ramp.to_float(over))
        return init_value * (height * ramp.half_cosine(left, 1 - left)[0] + alpha)

    return function


@schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> ramp.Function:
    """One `warmup_cosine_decay_schedule` after the other.

    Args:
      cosine_kwargs: The arguments of each of them by name. Each lasts for its
        ``decay_steps``, which count its warmup too.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range, or there are no arguments at all.
      TypeError: ``cosine_kwargs`` is no list of dicts, or an argument is missing.

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
            f"warmup_cosine_decay_schedule, got {cosine_kwargs!r}"
        )
    if not cosine_kwargs:
        raise ValueError("cosine_kwargs must be one or more dicts, got none")
    cycles = [warmup_cosine_decay_schedule(**given) for given in cosine_kwargs]
    ends = itertools.accumulate(int(x["decay_steps"]) for x in cosine_kwargs[:-1])
    return join_schedules(cycles, list(ends))


@functools.cache
def _decays(
    first: int, t_mul: float, largest: int
) -> tuple[list[int], list[float], list[float]]:
    """The first step after every decay, its exact end minus that step, and its length.

    Decimals, because whoever writes 1.1 and 1000 means restarts at 2100 and 3310, where
    powers of the float 1.1 come out a little later.
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
