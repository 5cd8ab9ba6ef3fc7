"""Cycles between two values.

Smith, "Cyclical learning rates for training neural networks", 2017: a rate that swings
between a low and a high bound needs neither tuning nor decay; a short test run gives
the bounds. A half cycle takes 2 to 10 epochs.
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


@schedule
def cyclic_schedule(
    init_value: float,
    peak_value: float,
    up_steps: int,
    down_steps: int | None = None,
    *,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    shape: Literal["linear", "cosine"] = "linear",
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
) -> ramp.Function:
    """Cycle between two values, torch's CyclicLR.

        init_value + (peak_value - init_value) h s

    ``s`` goes from 0 to 1 in ``up_steps`` and back in ``down_steps``; ``h`` is 1
    (``"triangular"``), ``2^-i`` after ``i`` whole cycles (``"triangular2"``), or
    ``gamma^t`` (``"exp_range"``). A function ``scale_fn`` replaces these three.

    torch also cycles the momentum, against the rate: ``cyclic_schedule(0.9, 0.8, …)``.
    torch's CosineAnnealingLR, which rises again after ``T_max`` steps, is
    ``cyclic_schedule(lr, eta_min, T_max, shape="cosine")``.

    Args:
      init_value: The value at step 0 and after each cycle.
      peak_value: The value at ``up_steps``; it may be the lower one.
      up_steps: Number of steps from ``init_value`` to ``peak_value``, > 0.
      down_steps: Number of steps back, > 0; None means ``up_steps``.
      mode: How the height ``h`` changes, see above.
      gamma: Factor per step, > 0; only for mode ``"exp_range"``.
      shape: ``"linear"``, or ``"cosine"`` for half cosines.
      scale_fn: The height ``h`` as a function of the cycle, 1, 2, …, or of the step;
        ``mode`` then has no effect.
      scale_mode: What ``scale_fn`` is a function of: ``"cycle"``, or ``"iterations"``
        for the step.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or ``gamma`` is given with another mode.
      TypeError: ``scale_fn`` is not a function of one number.

    >>> import jopt
    >>> jopt.cyclic_schedule(0.0, 1.0, 2, mode="triangular2")(jnp.arange(8))
    Array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25], dtype=float32)
    """
    arguments.finite(init_value=init_value, peak_value=peak_value)
    down_steps = up_steps if down_steps is None else down_steps
    arguments.at_least(1, up_steps=up_steps, down_steps=down_steps)
    arguments.one_of(("triangular", "triangular2", "exp_range"), mode=mode)
    arguments.positive(gamma=gamma)
    arguments.one_of(("cycle", "iterations"), scale_mode=scale_mode)
    if scale_fn is not None:
        arguments.function_of_step("scale_fn", scale_fn)
    if arguments.known(gamma) != 1 and mode != "exp_range":
        raise ValueError(f"gamma must be 1 with mode={mode!r}, got gamma={gamma}")
    shapes = {"linear": ramp.linear, "cosine": ramp.half_cosine}
    arguments.one_of(shapes, shape=shape)

    log = jnp.log if arguments.known(gamma) is None else math.log
    length = up_steps + down_steps
    points = [(0, init_value), (up_steps, peak_value), (length, init_value)]
    cycle = ramp.path(points, shapes[shape])

    def function(count):
        steps = ramp.nonnegative(count)
        cycles, offset, _ = ramp.periods(steps, length)
        value = cycle(offset)
        if scale_fn is not None:
            x = cycles + 1 if scale_mode == "cycle" else steps
            height = jnp.asarray(scale_fn(x.astype(jnp.int32)), scalar_dtype())
            return init_value + (value - init_value) * height
        if mode == "triangular":
            return value
        base, x = (0.5, cycles) if mode == "triangular2" else (gamma, steps)
        x = ramp.to_float(x)
        # expm1, because 1 minus the height would cancel while the height is near 1.
        shrinkage = -jnp.expm1(x * log(base))
        return init_value * shrinkage + value * ramp.power(base, x)

    return function
