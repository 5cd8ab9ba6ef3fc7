"""``optax.schedules``: jopt's schedules, for all arguments that optax takes.

Where jopt's own schedule takes the arguments, it is the result, with its recipe. For
others the same curve runs without jopt's checks: durations that are fractions of a
step, durations of 0, exponents and decay rates below 0, arrays as values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.core.factory import Schedule
from jopt.interop.optax.injecting import (
    InjectHyperparamsState,
    InjectStatefulHyperparamsState,
    StatefulSchedule,
    WrappedSchedule,
    inject_hyperparams,
    inject_stateful_hyperparams,
)
from jopt.schedules import cosine, decay, join, onecycle, piecewise, ramp, warmup
from jopt.tree import scalar_dtype
from jopt.values import arguments
from jopt.values.arguments import text_of


__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]

Scales = Mapping[Any, Any] | None


def constant_schedule(value: ArrayLike) -> Callable[[Any], Any]:
    """The same value at every step.

    Args:
      value: A number, or anything else.

    >>> constant_schedule(0.1)
    constant_schedule(value=0.1)
    """
    return _ours(decay.constant_schedule, value) or (lambda count: value)


def linear_schedule(
    init_value: ArrayLike,
    end_value: ArrayLike,
    transition_steps: float,
    transition_begin: float = 0,
) -> Callable[[Any], Any]:
    """A straight line between two values.

    Args:
      init_value: The value up to ``transition_begin``.
      end_value: The value after the transition.
      transition_steps: How long it takes; 0 or less keeps ``init_value`` for ever.
      transition_begin: The step at which it begins; less than 0 means 0.

    >>> linear_schedule(0.0, 1.0, 4)(2.5), linear_schedule(0.0, 1.0, 0)(9)
    (Array(0.625, dtype=float32), Array(0., dtype=float32))
    """
    begin = max(transition_begin, 0)
    args = init_value, end_value, transition_steps, begin
    return _ours(decay.linear_schedule, *args) or polynomial_schedule(
        init_value, end_value, 1, transition_steps, begin
    )


def polynomial_schedule(
    init_value: ArrayLike,
    end_value: ArrayLike,
    power: ArrayLike,
    transition_steps: float,
    transition_begin: float = 0,
) -> Callable[[Any], Any]:
    """A transition along a power of the remaining share.

    Args:
      init_value: The value up to ``transition_begin``.
      end_value: The value after the transition.
      power: The exponent; 0 keeps ``init_value`` for ever.
      transition_steps: How long it takes; 0 or less keeps ``init_value`` for ever.
      transition_begin: The step at which it begins; less than 0 means 0.

    >>> polynomial_schedule(1.0, 0.0, 2, 2.5)(jnp.array([0, 1, 2, 3]))
    Array([1.  , 0.36, 0.04, 0.  ], dtype=float32)
    """
    if transition_steps <= 0 or arguments.known(power) == 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)
    args = init_value, end_value, power, transition_steps, begin
    ours = _ours(decay.polynomial_schedule, *args)
    end = begin + transition_steps
    shape = ramp.polynomial(power)  # type: ignore[arg-type]
    return ours or _unchecked(_ramp(init_value, end_value, begin, end, shape))


def exponential_decay(
    init_value: ArrayLike,
    transition_steps: float,
    decay_rate: Any,
    transition_begin: float = 0,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Callable[[Any], Any]:
    """Multiply by ``decay_rate`` every ``transition_steps`` steps.

    Args:
      init_value: The value up to ``transition_begin``.
      transition_steps: How long one factor takes; 0 or less keeps ``init_value``.
      decay_rate: The factor; 0 keeps ``init_value`` for ever.
      transition_begin: The step at which it begins; less than 0 means 0.
      staircase: Whether to round the exponent down.
      end_value: A lower bound for a rate below 1, else an upper one.

    >>> exponential_decay(1.0, 2, 0.5, end_value=2.0)(jnp.arange(3))
    Array([2., 2., 2.], dtype=float32)
    """
    if transition_steps <= 0 or decay_rate == 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)
    args = init_value, transition_steps, decay_rate, begin, staircase, end_value
    bound = jnp.maximum if decay_rate < 1 else jnp.minimum

    def function(count):
        exponent = jnp.maximum(count - begin, 0) / transition_steps
        exponent = jnp.floor(exponent) if staircase else exponent
        value = init_value * jnp.power(decay_rate, exponent)
        return value if end_value is None else bound(value, end_value)

    return _ours(decay.exponential_decay, *args) or _unchecked(function)


def cosine_decay_schedule(
    init_value: ArrayLike,
    decay_steps: float,
    alpha: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> Callable[[Any], Any]:
    """Half a cosine, from ``init_value`` to a fraction of it.

    Args:
      init_value: The value at step 0.
      decay_steps: The step that reaches the end value, > 0.
      alpha: The end value as a fraction of ``init_value``.
      exponent: Power of the half cosine.

    Raises:
      ValueError: ``decay_steps`` is not positive.

    >>> cosine_decay_schedule(1.0, 2, alpha=-0.5)(jnp.arange(3))
    Array([ 1.  ,  0.25, -0.5 ], dtype=float32)
    """
    arguments.positive(decay_steps=decay_steps)
    shape = ramp.cosine(exponent)  # type: ignore[arg-type]
    end_value = alpha * init_value  # type: ignore[operator]
    ours = _ours(cosine.cosine_decay_schedule, init_value, decay_steps, alpha, exponent)
    return ours or _unchecked(_ramp(init_value, end_value, 0, decay_steps, shape))


def piecewise_constant_schedule(
    init_value: ArrayLike, boundaries_and_scales: Scales = None
) -> Callable[[Any], Any]:
    """Multiply a value by a factor at each boundary.

    Args:
      init_value: The value before the first boundary.
      boundaries_and_scales: ``{step: factor}``, with factors >= 0, which accumulate.

    Raises:
      ValueError: A factor is negative.

    >>> piecewise_constant_schedule(1.0, {1.5: 0.5})(jnp.arange(3))
    Array([1. , 1. , 0.5], dtype=float32)
    """
    points = _points(init_value, boundaries_and_scales)
    args = init_value, boundaries_and_scales
    values = [ramp.constant(value) for _, value in points]
    pieces = ramp.pieces(values, [step for step, _ in points[1:]])
    return _ours(piecewise.piecewise_constant_schedule, *args) or _unchecked(pieces)


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: ArrayLike, boundaries_and_scales: Scales = None
) -> Callable[[Any], Any]:
    """Interpolate between values given as factors, by lines or half cosines.

    Args:
      interpolate_type: ``"linear"`` or ``"cosine"``.
      init_value: The value at step 0.
      boundaries_and_scales: ``{step: factor}``, with factors >= 0, which accumulate.

    Raises:
      ValueError: A factor is negative, or ``interpolate_type`` is another word.

    >>> piecewise_interpolate_schedule("linear", 0.0, {2: 3.0})(1)
    Array(0., dtype=float32)
    """
    shapes = {"linear": ramp.linear, "cosine": ramp.half_cosine}
    arguments.one_of(shapes, interpolate_type=interpolate_type)
    points = _points(init_value, boundaries_and_scales)
    path = ramp.path(points, shapes[interpolate_type])
    args = interpolate_type, init_value, boundaries_and_scales
    return _ours(onecycle.piecewise_interpolate_schedule, *args) or _unchecked(path)


def linear_onecycle_schedule(
    transition_steps: float,
    peak_value: ArrayLike,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
) -> Callable[[Any], Any]:
    """Three lines: up, back down, and further down to almost zero.

    Args:
      transition_steps: The step that reaches the end value, > 0.
      peak_value: The largest value.
      pct_start: Fraction of the steps up to the peak.
      pct_final: Fraction of the steps up to the end of the second line.
      div_factor: The peak divided by the value at step 0.
      final_div_factor: The value at step 0 divided by the end value.

    Raises:
      ValueError: ``transition_steps`` is not positive.

    >>> linear_onecycle_schedule(10, 1.0)(3)
    Array(1., dtype=float32)
    """
    arguments.positive(transition_steps=transition_steps)
    args = transition_steps, peak_value, pct_start, pct_final
    factors = div_factor, final_div_factor
    return _ours(
        onecycle.linear_onecycle_schedule, *args, *factors
    ) or piecewise_interpolate_schedule(
        "linear",
        peak_value / div_factor,  # type: ignore[operator]
        {
            int(pct_start * transition_steps): div_factor,
            int(pct_final * transition_steps): 1 / div_factor,
            transition_steps: 1 / final_div_factor,
        },
    )


def cosine_onecycle_schedule(
    transition_steps: float,
    peak_value: ArrayLike,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
) -> Callable[[Any], Any]:
    """Half a cosine up, then half a cosine down to almost zero.

    Args:
      transition_steps: The step that reaches the end value, > 0.
      peak_value: The largest value.
      pct_start: Fraction of the steps up to the peak.
      div_factor: The peak divided by the value at step 0.
      final_div_factor: The value at step 0 divided by the end value.

    Raises:
      ValueError: ``transition_steps`` is not positive.

    >>> cosine_onecycle_schedule(10, 1.0)(3)
    Array(1., dtype=float32)
    """
    arguments.positive(transition_steps=transition_steps)
    args = transition_steps, peak_value, pct_start, div_factor, final_div_factor
    return _ours(
        onecycle.cosine_onecycle_schedule, *args
    ) or piecewise_interpolate_schedule(
        "cosine",
        peak_value / div_factor,  # type: ignore[operator]
        {
            int(pct_start * transition_steps): div_factor,
            int(transition_steps): 1 / (div_factor * final_div_factor),
        },
    )


def warmup_constant_schedule(
    init_value: ArrayLike, peak_value: ArrayLike, warmup_steps: float
) -> Callable[[Any], Any]:
    """Linear warmup, then constant.

    Args:
      init_value: The value at step 0.
      peak_value: The value from ``warmup_steps`` on.
      warmup_steps: Length of the warmup. As in optax, 0 means that the value never
        leaves ``init_value``; in jopt it starts at the peak.

    >>> warmup_constant_schedule(0.0, 1.0, 2)(jnp.arange(4))
    Array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: float,
    decay_steps: float,
    end_value: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> Callable[[Any], Any]:
    """Linear warmup, then half a cosine.

    Args:
      init_value: The value at step 0.
      peak_value: The value at ``warmup_steps``. With 0, the value after the warmup is
        0, whatever ``end_value`` is.
      warmup_steps: Length of the warmup.
      decay_steps: The step that reaches the end value; it includes the warmup.
      end_value: The value from ``decay_steps`` on.
      exponent: Power of the half cosine.

    Raises:
      ValueError: No steps remain after the warmup.

    >>> warmup_cosine_decay_schedule(0.0, 1.0, 2, 4, -0.5)(jnp.arange(5))
    Array([ 0.  ,  0.5 ,  1.  ,  0.25, -0.5 ], dtype=float32)
    """
    if arguments.known(peak_value) == 0:
        end_value = 0.0
    args = init_value, peak_value, warmup_steps, decay_steps, end_value, exponent
    if schedule := _ours(warmup.warmup_cosine_decay_schedule, *args):
        return schedule
    steps = decay_steps - warmup_steps
    arguments.positive(**{"decay_steps - warmup_steps": steps})
    shape = ramp.cosine(exponent)  # type: ignore[arg-type]
    fall = _unchecked(_ramp(peak_value, end_value, 0, steps, shape))
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    return join_schedules([rise, fall], [warmup_steps])


def warmup_exponential_decay_schedule(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: float,
    transition_steps: float,
    decay_rate: Any,
    transition_begin: float = 0,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Callable[[Any], Any]:
    """Linear warmup, then an exponential decay.

    Args:
      init_value: The value at step 0.
      peak_value: The value at ``warmup_steps``.
      warmup_steps: Length of the warmup.
      transition_steps: How long one factor takes; 0 or less keeps the peak.
      decay_rate: The factor; 0 keeps the peak.
      transition_begin: How long to stay at the peak; less than 0 means 0.
      staircase: Whether to round the exponent down.
      end_value: A lower bound for a rate below 1, else an upper one.

    >>> warmup_exponential_decay_schedule(0.0, 1.0, 2, 1, 0.5)(jnp.arange(5))
    Array([0.  , 0.5 , 1.  , 0.5 , 0.25], dtype=float32)
    """
    begin = max(transition_begin, 0)
    after = transition_steps, decay_rate, begin, staircase, end_value
    args = init_value, peak_value, warmup_steps, *after
    if schedule := _ours(warmup.warmup_exponential_decay_schedule, *args):
        return schedule
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    return join_schedules([rise, exponential_decay(peak_value, *after)], [warmup_steps])


def sgdr_schedule(
    cosine_kwargs: Iterable[Mapping[str, Any]],
) -> Callable[[Any], Any]:
    """Several `warmup_cosine_decay_schedule` in sequence.

    Args:
      cosine_kwargs: A dict of keyword arguments for each of them. Each lasts for its
        ``decay_steps``.

    >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=1, decay_steps=3)
    >>> sgdr_schedule(cycle for _ in range(2))(jnp.arange(7))
    Array([0. , 1. , 0.5, 0. , 1. , 0.5, 0. ], dtype=float32)
    """
    cycles = list(cosine_kwargs)
    ends = np.cumsum([cycle["decay_steps"] for cycle in cycles])
    schedules = [warmup_cosine_decay_schedule(**cycle) for cycle in cycles]
    return join_schedules(schedules, ends[:-1].tolist())


def join_schedules(
    schedules: Sequence[Callable[[Any], Any]], boundaries: Sequence[Any]
) -> Callable[[Any], Any]:
    """Schedules in sequence, each counting from its own beginning.

    Args:
      schedules: Functions of the step.
      boundaries: The first step of each schedule except the first.

    Raises:
      TypeError: A schedule is not a function.

    >>> parts = [constant_schedule(1.0), linear_schedule(1.0, 0.0, 4)]
    >>> join_schedules(parts, [1.5])(jnp.arange(4.0))
    Array([1.   , 1.   , 0.875, 0.625], dtype=float32)
    """
    for i, part in enumerate(schedules):
        if not callable(part):
            raise TypeError(
                f"schedules[{i}] must be a function of the step, got {text_of(part)}"
            )

    def joined(count):
        value = schedules[0](count)
        # A boundary without a schedule, or the reverse, has no effect.
        for boundary, part in zip(boundaries, schedules[1:], strict=False):
            value = jnp.where(count < boundary, value, part(count - boundary))
        return value

    ours = _ours(join.join_schedules, list(schedules), list(boundaries))
    return ours or joined


def _ours(factory: Callable[..., Any], *args: Any) -> Any:
    """Return jopt's schedule, or None if it does not take the arguments."""
    try:
        return factory(*args)
    except (TypeError, ValueError):
        return None


def _unchecked(function: ramp.Function) -> Schedule:
    """Return a schedule whose bounds may lie between two steps."""
    return Schedule(lambda count: function(jnp.asarray(count, scalar_dtype())))


def _ramp(
    init_value: Any, end_value: Any, start: Any, end: Any, shape: ramp.Shape
) -> ramp.Function:
    return ramp.ramp(init_value, end_value, float(start), float(end), shape)


def _points(init_value: Any, scales: Scales) -> list[tuple[float, Any]]:
    """Return the boundaries, from step 0, with the value at each of them."""
    points = [(0.0, init_value)]
    for step, scale in sorted((scales or {}).items()):
        arguments.nonnegative(**{f"boundaries_and_scales[{step}]": scale})
        points.append((float(step), points[-1][1] * scale))
    return points
