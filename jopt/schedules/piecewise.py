"""Piecewise constant schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.tree import scalar_dtype
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of
from jopt.values.numbers import perhaps_traced


@schedule
def piecewise_constant_schedule(
    init_value: float,
    boundaries_and_scales: Mapping[int, float] | None = None,
    *,
    switch: Literal["at", "after"] = "at",
) -> ramp.Function:
    """Multiply a value by a factor at each boundary.

    `piecewise_constant` takes the values themselves, which may be zero.

    Args:
      init_value: The value before the first boundary.
      boundaries_and_scales: ``{step: factor}``; steps and factors are >= 0. The factors
        accumulate.
      switch: When to switch: ``"at"`` the boundary, as optax does, or one step
        ``"after"`` it, as Keras and TensorFlow do.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.
      TypeError: ``boundaries_and_scales`` is not a dict from steps to factors.

    >>> import jopt
    >>> jopt.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.1})(jnp.arange(6))
    Array([1.  , 1.  , 0.5 , 0.5 , 0.05, 0.05], dtype=float32)
    """
    return _stairs(*scaled(init_value, boundaries_and_scales), switch)


@schedule
def piecewise_constant(
    boundaries: Sequence[int],
    values: Sequence[float],
    *,
    switch: Literal["at", "after"] = "at",
) -> ramp.Function:
    """A sequence of constant values, as in Keras's PiecewiseConstantDecay.

    Args:
      boundaries: The steps at which to switch, >= 0 and increasing.
      values: The value of each piece, one more than there are boundaries.
      switch: See `piecewise_constant_schedule`.

    Returns:
      A schedule.

    Raises:
      ValueError: The boundaries do not increase, or there is not one more value than
        boundaries.

    >>> import jopt
    >>> jopt.piecewise_constant([2, 4], [1.0, 0.0, 0.5])(jnp.arange(6))
    Array([1. , 1. , 0. , 0. , 0.5, 0.5], dtype=float32)
    >>> jopt.piecewise_constant([2, 4], [1.0, 0.0, 0.5], switch="after")(jnp.arange(6))
    Array([1. , 1. , 1. , 0. , 0. , 0.5], dtype=float32)
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"values must be one more than boundaries, got {len(values)} values for "
            f"{len(boundaries)} boundaries"
        )
    levels = {f"values[{i}]": x for i, x in enumerate(values)}
    levels = {name: perhaps_traced(name, x) for name, x in levels.items()}
    arguments.finite(**levels)
    steps = arguments.increasing("boundaries", boundaries)
    return _stairs(steps, list(levels.values()), switch)


def scaled(
    init_value: float, boundaries_and_scales: Mapping[int, float] | None
) -> tuple[list[int], list[float]]:
    """Return the sorted boundaries, and the first value with the products after it."""
    arguments.finite(init_value=init_value)
    scales, values = boundaries_and_scales or {}, [init_value]
    if not isinstance(scales, Mapping):
        raise TypeError(
            "boundaries_and_scales must be a dict {step: factor}, such as {1000: 0.5}, "
            f"got {abbreviated(scales)}. For a list of steps and a list of values, use "
            "jopt.piecewise_constant(boundaries, values)"
        )
    for boundary in scales:
        if not arguments.is_number(boundary):
            raise TypeError(
                "the steps of boundaries_and_scales must be whole numbers, got "
                f"{text_of(boundary)}"
            )
    for boundary in sorted(scales):
        name = f"boundaries_and_scales[{text_of(boundary)}]"
        scale = perhaps_traced(name, scales[boundary])
        arguments.nonnegative(**{name: scale})
        values.append(values[-1] * scale)
    return arguments.increasing("boundaries", sorted(scales)), values


def _stairs(
    boundaries: Sequence[int], values: Sequence[float], switch: str
) -> ramp.Function:
    arguments.one_of(("at", "after"), switch=switch)
    side = {"at": "right", "after": "left"}[switch]

    def function(count):
        table = jnp.asarray(values, scalar_dtype())
        return table[ramp.count_passed(ramp.nonnegative(count), boundaries, side)]

    return function
