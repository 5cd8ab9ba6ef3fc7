"""Up and down once: the 1cycle policy, and paths through given values.

Smith & Topin, "Super-convergence: very fast training of neural networks using large
learning rates", 2018: the rate rises far above what training tolerates at first, then
falls far below its initial value, while the momentum follows an inverse cycle (see
`onecycle_schedule`). optax and torch place the phases differently; this module has
both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.schedules.piecewise import scaled
from jopt.values import arguments


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: Literal["linear", "cosine"],
    init_value: float,
    boundaries_and_scales: Mapping[int, float] | None = None,
) -> ramp.Function:
    """Interpolate between values given as factors, by lines or half cosines.

    Args:
      interpolate_type: ``"linear"`` or ``"cosine"``.
      init_value: The value at step 0.
      boundaries_and_scales: ``{step: factor}``; steps and factors are >= 0. The value
        at each of these steps is the value at the previous one times the factor.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

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
    """Three lines as in optax: up, back down, and further down to almost zero.

    Args:
      transition_steps: The step that reaches the end value, > 0.
      peak_value: The largest value.
      pct_start: Fraction of the steps (not a percentage) up to the peak, in [0, 1].
      pct_final: Fraction of the steps up to the end of the second line, in [0, 1] and
        above ``pct_start``.
      div_factor: The peak divided by the value at step 0, > 0.
      final_div_factor: The value at step 0 divided by the end value, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> cycle = jopt.linear_onecycle_schedule(10, 1.0, 0.2, 0.6, div_factor=10.0)
    >>> cycle(jnp.array([0, 1, 2, 4, 6, 10]))
    Array([1.0e-01, 5.5e-01, 1.0e+00, 5.5e-01, 1.0e-01, 1.0e-05], dtype=float32)
    """
    _check_cycle(
        peak_value, div_factor, final_div_factor, transition_steps=transition_steps
    )
    arguments.untraced(pct_start=pct_start, pct_final=pct_final)
    arguments.fraction(pct_start=pct_start, pct_final=pct_final)
    if pct_start >= pct_final:
        raise ValueError(
            f"pct_final must be > pct_start, got pct_final={pct_final}, "
            f"pct_start={pct_start}"
        )
    # In a cycle of few steps boundaries may coincide; the dict then keeps the later
    # factor, as in optax.
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
    """Half a cosine up, then half a cosine down to almost zero, as in optax.

    Args:
      transition_steps, peak_value, pct_start: See `linear_onecycle_schedule`.
      div_factor, final_div_factor: See `linear_onecycle_schedule`.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.cosine_onecycle_schedule(10, 1.0)(jnp.array([0, 3, 10]))
    Array([4.e-02, 1.e+00, 4.e-06], dtype=float32)
    """
    _check_cycle(
        peak_value, div_factor, final_div_factor, transition_steps=transition_steps
    )
    arguments.untraced(pct_start=pct_start)
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
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
    three_phase: bool = False,
) -> ramp.Function:
    """One cycle up and down, torch's OneCycleLR.

    The peak is at step ``pct_start total_steps - 1``, which may lie between two steps,
    and the end is at the last step of the training, ``total_steps - 1``. torch also
    moves the momentum from 0.95 to 0.85 and back: ``onecycle_schedule(0.85,
    total_steps=…, div_factor=0.85 / 0.95, final_div_factor=1.0)``.

    Args:
      peak_value: The largest value, torch's ``max_lr``.
      total_steps: Number of steps of the training, > 0.
      pct_start: Fraction of the steps (not a percentage) with a rising value, in
        [0, 1].
      anneal_strategy: ``"cos"`` for half cosines or ``"linear"`` for lines.
      div_factor, final_div_factor: See `linear_onecycle_schedule`.
      three_phase: Whether to descend as steeply as ascend, down to the value at step 0,
        and then to the end value; ``pct_start`` is then at most 0.5.

    Returns:
      A schedule, constant after the last step.

    Raises:
      ValueError: An argument is out of range.

    >>> import jax.numpy as jnp
    >>> import jopt
    >>> jopt.onecycle_schedule(1.0, total_steps=10)(jnp.array([0, 2, 9, 10]))
    Array([4.e-02, 1.e+00, 4.e-06, 4.e-06], dtype=float32)
    """
    _check_cycle(peak_value, div_factor, final_div_factor, total_steps=total_steps)
    shapes = {"cos": ramp.half_cosine, "linear": ramp.linear}
    arguments.one_of(shapes, anneal_strategy=anneal_strategy)
    arguments.untraced(pct_start=pct_start)
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
