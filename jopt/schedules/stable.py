"""Warmup, a plateau, and a short decay at the end."""

from __future__ import annotations

from typing import Literal

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.schedules.warmup import warmup
from jopt.values import arguments


@schedule
def warmup_stable_decay(
    peak_value: float,
    *,
    warmup_steps: int,
    decay_steps: int,
    total_steps: int,
    init_value: float = 0.0,
    end_value: float = 0.0,
    decay_shape: Literal["linear", "cosine", "1-sqrt", "1-square"] = "linear",
) -> ramp.Function:
    """WSD: linear warmup, a plateau, and a short decay at the end.

    The end can be chosen late: training can continue or decay from any step of the
    plateau. A decay over 10 to 20 percent of the steps is usual.

    Args:
      peak_value: The value of the plateau.
      warmup_steps: Number of steps of the warmup, >= 0.
      decay_steps: Number of steps of the decay, > 0, which ends at ``total_steps``.
      total_steps: The step that reaches the end value: all steps of the training.
      init_value: The value at step 0.
      end_value: The value from ``total_steps`` on.
      decay_shape: ``"linear"``, ``"cosine"`` (half a cosine), ``"1-sqrt"`` (one minus
        the root of the decay's elapsed share, steepest first) or ``"1-square"`` (one
        minus its square, steepest last).

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or warmup and decay together exceed
        ``total_steps``.

    Hu et al., "MiniCPM", 2024 (for its exponential decay, use ``transition_begin`` of
    `warmup_exponential_decay_schedule`). Hägele et al., "Scaling laws and
    compute-optimal training beyond fixed training durations", 2024, compare the shapes.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> steps = {"warmup_steps": 2, "decay_steps": 4, "total_steps": 8}
    >>> jopt.warmup_stable_decay(1.0, **steps)(jnp.arange(9))
    Array([0.  , 0.5 , 1.  , 1.  , 1.  , 0.75, 0.5 , 0.25, 0.  ], dtype=float32)
    """
    shapes = {
        "linear": ramp.linear,
        "cosine": ramp.half_cosine,
        "1-sqrt": ramp.one_minus_sqrt,
        "1-square": ramp.one_minus_square,
    }
    arguments.one_of(shapes, decay_shape=decay_shape)
    arguments.finite(end_value=end_value)
    arguments.at_least(0, warmup_steps=warmup_steps)
    arguments.at_least(1, decay_steps=decay_steps)
    if warmup_steps + decay_steps > total_steps:
        raise ValueError(
            f"total_steps must be >= warmup_steps + decay_steps, got total_steps="
            f"{total_steps}, warmup_steps={warmup_steps}, decay_steps={decay_steps}"
        )
    start, shape = total_steps - decay_steps, shapes[decay_shape]
    decay = ramp.ramp(peak_value, end_value, start, total_steps, shape)
    return warmup(init_value, peak_value, warmup_steps, decay)
