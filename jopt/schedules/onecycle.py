"""Up and down once: the 1cycle policy, and paths through given values.

Smith & Topin, "Super-convergence: very fast training of neural networks using large
learning rates", 2018: up to a rate far above what training bears at first, then down
far below where it began, with an inverse cycle of the momentum (`onecycle_schedule`
says how). optax and torch place the phases differently: both are here, each with its
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.schedules.piecewise import scaled
from jopt.values import arguments


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: float,
    boundaries_and_scales: Mapping[int, float] | None = None,
) -> ramp.Function:
    """Lines or half cosines through values that are given as factors.

    Args:
      interpolate_type: ``"linear"`` or ``"cosine"``.
      init_value: The value at step 0.
      boundaries_and_scales: ``{step: factor}``; steps and factors are >= 0. The value
        at each of these steps is that at the one before, times the factor.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> schedule = jopt.piecewise_interpolate_schedule("linear", 1.0, {2: 3.0, 4: 0.0})
    >>> schedule(jnp.arange(6))
    Array([1. , 2. , 3. , 1.5, 0. , 0. ], dtype=float32)
    """
    shapes = {"linear": ramp.linear, "cosine": ramp.half_cosine}
    arguments.one_of(shapes, interpolate_type=interpolate_type)
    steps, values = scaled(init_value, boundaries_and_scales)
    points = list(zip([0, *steps], values, strict=True))
    return ramp.path(points, shapes[interpolate_type])


@schedule
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
) -> ramp.Function:
    """Three lines, optax's: up, down again, and further down to almost nothing.

    Args:
      transition_steps: The step that the end is reached at, > 0.
      peak_value: The value at the top.
      pct_start: The share of the steps (not a percentage) up to the top, in [0, 1].
      pct_final: The share up to the end of the second line, above ``pct_start``.
      div_factor: The peak divided by the value at step 0, > 0.
      final_div_factor: The value at step 0 divided by that at the end, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> cycle = jopt.linear_onecycle_schedule(10, 1.0, 0.2, 0.6, div_factor=10.0)
    >>> cycle(jnp.array([0, 1, 2, 4, 6, 10]))
    Array([1.0e-01, 5.5e-01, 1.0e+00, 5.5e-01, 1.0e-01, 1.0e-05], dtype=float32)
    """
    _check_cycle(
        peak_value, div_factor, final_div_factor, transition_steps=transition_steps
    )
    arguments.fraction(pct_start=pct_start, pct_final=pct_final)
    if pct_start >= pct_final:
        raise ValueError(
            f"pct_final must be > pct_start, got pct_final={pct_final}, "
            f"pct_start={pct_start}"
        )
    # In a cycle of a few steps boundaries may coincide; then the later factor counts.
    return piecewise_interpolate_schedule(
        "linear",
        peak_value / div_factor,
        {
            int(pct_start * transition_steps): div_factor,
            int(pct_final * transition_steps): 1 / div_factor,
            transition_steps: 1 / final_div_factor,
        },
    )


@schedule
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
) -> ramp.Function:
    """Half a cosine up, half a cosine down to almost nothing, with optax's numbers.

    Args:
      transition_steps: The step that the end is reached at, > 0.
      peak_value: The value at the top.
      pct_start: The share of the steps (not a percentage) up to the top, in [0, 1].
      div_factor: The peak divided by the value at step 0, > 0.
      final_div_factor: The value at step 0 divided by that at the end, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.cosine_onecycle_schedule(10, 1.0)(jnp.array([0, 3, 10]))
    Array([4.e-02, 1.e+00, 4.e-06], dtype=float32)
    """
    _check_cycle(
        peak_value, div_factor, final_div_factor, transition_steps=transition_steps
    )
    arguments.fraction(pct_start=pct_start)
    return piecewise_interpolate_schedule(
        "cosine",
        peak_value / div_factor,
        {
            int(pct_start * transition_steps): div_factor,
            transition_steps: 1 / (div_factor * final_div_factor),
        },
    )


@schedule
def onecycle_schedule(
    peak_value: float,
    *,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
    three_phase: bool = False,
) -> ramp.Function:
    """Up and down with the numbers of torch's OneCycleLR.

    The top is at step ``pct_start total_steps - 1``, which may lie between two steps,
    and the end at the last step that is taken, ``total_steps - 1``. The momentum that
    torch takes from 0.95 to 0.85 and back is ``onecycle_schedule(0.85, total_steps=…,
    div_factor=0.85 / 0.95, final_div_factor=1.0)``.

    Args:
      peak_value: The value at the top, torch's ``max_lr``.
      total_steps: The number of steps of the training, > 0.
      pct_start: The share of the steps (not a percentage) that goes up, in [0, 1].
      anneal_strategy: ``"cos"`` for half cosines or ``"linear"`` for lines.
      div_factor: The peak divided by the value at step 0, > 0.
      final_div_factor: The value at step 0 divided by that at the end, > 0.
      three_phase: Go down as steeply as up, to the value of step 0, and from there to
        the end; then ``pct_start`` is at most 0.5.

    Returns:
      A schedule. After the last step it stays where it is.

    Raises:
      ValueError: A number is out of its range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.onecycle_schedule(1.0, total_steps=10)(jnp.array([0, 2, 9, 10]))
    Array([4.e-02, 1.e+00, 4.e-06, 4.e-06], dtype=float32)
    """
    _check_cycle(peak_value, div_factor, final_div_factor, total_steps=total_steps)
    shapes = {"cos": ramp.half_cosine, "linear": ramp.linear}
    arguments.one_of(shapes, anneal_strategy=anneal_strategy)
    arguments.fraction(pct_start=pct_start)
    if three_phase and pct_start > 0.5:
        raise ValueError(
            f"pct_start must be <= 0.5 with three_phase=True, got pct_start={pct_start}"
        )
    init_value = peak_value / div_factor
    points = [
        (0, init_value),
        (pct_start * total_steps - 1, peak_value),
        (2 * pct_start * total_steps - 2, init_value),
        (total_steps - 1, init_value / final_div_factor),
    ]
    if not three_phase:
        del points[2]
    return ramp.path(points, shapes[anneal_strategy])


def _check_cycle(
    peak_value: float, div_factor: float, final_div_factor: float, **steps: int
) -> None:
    arguments.finite(peak_value=peak_value)
    arguments.positive(div_factor=div_factor, final_div_factor=final_div_factor)
    arguments.at_least(1, **steps)
