"""Keras's schedules by their names, with their arguments, defaults and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from jopt.core.factory import Schedule
from jopt.interop.keras.factories import Factory, KerasSchedule, P
from jopt.schedules.cosine import cosine_decay_restarts, cosine_decay_schedule
from jopt.schedules.decay import exponential_decay, polynomial_schedule
from jopt.schedules.inverse import inverse_time_decay
from jopt.schedules.linear_cosine import linear_cosine_decay, noisy_linear_cosine_decay
from jopt.schedules.piecewise import piecewise_constant
from jopt.schedules.warmup import warmup_cosine, warmup_cosine_decay_schedule
from jopt.values import arguments


class ScheduleFactory(Factory[P, Any]):
    """A factory with the arguments and numbers of a Keras schedule."""

    def __init__(
        self,
        build: Callable[P, Schedule],
        module: str | None = "keras.optimizers.schedules",
    ):
        super().__init__(build, module)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> KerasSchedule:
        """Make a schedule that stands for Keras's."""
        return cast(KerasSchedule, super().__call__(*args, **kwargs))

    def plain(self, values: dict[str, Any]) -> Schedule:
        """Make the bare schedule from the values of all arguments."""
        steps = {n: x for n, x in values.items() if n.endswith("decay_steps")}
        for name, value in steps.items():
            if value <= 0:
                raise ValueError(f"{name} must be > 0, got {name}={value}")
        return super().plain(values)


def schedule(build: Callable[P, Schedule]) -> ScheduleFactory[P]:
    """Turn a function that makes a schedule of Keras 3 into a factory."""
    return ScheduleFactory(build)


def legacy_schedule(build: Callable[P, Schedule]) -> ScheduleFactory[P]:
    """Do the same for a schedule of Keras 2, whose configs have no module."""
    return ScheduleFactory(build, None)


@schedule
def ExponentialDecay(
    initial_learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = "ExponentialDecay",
) -> Schedule:
    """Exponential decay: ``initial_learning_rate decay_rate^(t / decay_steps)``.

    Args:
      initial_learning_rate: The value at step 0.
      decay_steps: Number of steps that decay by ``decay_rate``, > 0.
      decay_rate: Factor after every ``decay_steps`` steps.
      staircase: Whether to round the exponent down.
      name: Name in the config.

    >>> float(ExponentialDecay(0.5, 10, 0.5)(10))
    0.25
    """
    del name
    return exponential_decay(
        initial_learning_rate, decay_steps, decay_rate, staircase=staircase
    )


@schedule
def PiecewiseConstantDecay(
    boundaries: list[Any], values: list[Any], name: str | None = "PiecewiseConstant"
) -> Schedule:
    """A constant in each interval: ``values[i]`` up to and at ``boundaries[i]``.

    Args:
      boundaries: Increasing steps; fractions are rounded down.
      values: The value in each interval, one more than boundaries.
      name: Name in the config.

    >>> [round(float(PiecewiseConstantDecay([5], [0.1, 0.2])(t)), 4) for t in (5, 6)]
    [0.1, 0.2]
    """
    del name
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            "there must be one more value than boundaries, got "
            f"{len(values)} values and {len(boundaries)} boundaries"
        )
    # Steps are whole numbers: t <= 2.5 is the same as t <= 2.
    whole = [math.floor(b) for b in boundaries]
    return piecewise_constant(whole, values, switch="after")


@schedule
def PolynomialDecay(
    initial_learning_rate: float,
    decay_steps: int,
    end_learning_rate: float = 0.0001,
    power: float = 1.0,
    cycle: bool = False,
    name: str | None = "PolynomialDecay",
) -> Schedule:
    """Polynomial decay: ``(initial - end) (1 - t / decay_steps)^power + end``.

    Args:
      initial_learning_rate: The value at step 0.
      decay_steps: Number of steps until ``end_learning_rate``, > 0.
      end_learning_rate: The value from then on.
      power: Exponent; 1 gives a straight line.
      cycle: Whether to restart at the end: ``decay_steps`` then becomes its next
        multiple that is not below t.
      name: Name in the config.

    >>> round(float(PolynomialDecay(0.1, 10, 0.0)(5)), 4)
    0.05
    """
    del name
    return polynomial_schedule(
        initial_learning_rate, end_learning_rate, power, decay_steps, cycle=cycle
    )


@schedule
def InverseTimeDecay(
    initial_learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = "InverseTimeDecay",
) -> Schedule:
    """Inverse time decay: ``initial_learning_rate / (1 + decay_rate t / decay_steps)``.

    Args:
      initial_learning_rate: The value at step 0.
      decay_steps: Unit of the steps, > 0.
      decay_rate: Added to the divisor after every ``decay_steps`` steps, >= 0.
      staircase: Whether to round ``t / decay_steps`` down.
      name: Name in the config.

    >>> float(InverseTimeDecay(0.5, 10, 1.0)(10))
    0.25
    """
    del name
    return inverse_time_decay(initial_learning_rate, decay_steps, decay_rate, staircase)


@schedule
def CosineDecay(
    initial_learning_rate: float,
    decay_steps: int,
    alpha: float = 0.0,
    name: str | None = "CosineDecay",
    warmup_target: float | None = None,
    warmup_steps: int = 0,
) -> Schedule:
    """Half a cosine wave, after a linear warmup if ``warmup_target`` is given.

    Args:
      initial_learning_rate: The value at step 0.
      decay_steps: Number of steps of the cosine, > 0, without those of the warmup.
      alpha: The final value as a fraction of the start of the cosine.
      name: Name in the config.
      warmup_target: The value at the end of the warmup; None means no warmup.
      warmup_steps: Number of steps of the warmup; as in Keras, it has no effect without
        a target.

    >>> round(float(CosineDecay(0.1, 10, alpha=0.5)(10)), 4)
    0.05
    """
    del name
    arguments.at_least(0, warmup_steps=warmup_steps)
    if warmup_target is None:
        return cosine_decay_schedule(initial_learning_rate, decay_steps, alpha)
    end = alpha * warmup_target
    if warmup_steps == 0:
        return warmup_cosine_decay_schedule(
            initial_learning_rate, warmup_target, 0, decay_steps, end
        )
    return warmup_cosine(
        warmup_target,
        warmup_steps=warmup_steps,
        total_steps=warmup_steps + decay_steps,
        init_value=initial_learning_rate,
        end_value=end,
    )


@schedule
def CosineDecayRestarts(
    initial_learning_rate: float,
    first_decay_steps: int,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
    name: str | None = "SGDRDecay",
) -> Schedule:
    """Half a cosine wave that restarts.

    Args:
      initial_learning_rate: The value at step 0.
      first_decay_steps: Number of steps of the first wave, > 0.
      t_mul: Factor of the length at each restart.
      m_mul: Factor of the height above the lowest value at each restart.
      alpha: The lowest value as a fraction of ``initial_learning_rate``.
      name: Name in the config.

    >>> round(float(CosineDecayRestarts(0.1, 10)(10)), 4)
    0.1
    """
    del name
    return cosine_decay_restarts(
        initial_learning_rate, first_decay_steps, t_mul, m_mul, alpha
    )


@legacy_schedule
def LinearCosineDecay(
    initial_learning_rate: float,
    decay_steps: int,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
    name: str | None = "LinearCosineDecay",
) -> Schedule:
    """A line times a cosine, from Keras 2.

    Args:
      initial_learning_rate: The value at step 0 where ``alpha`` and ``beta`` are 0.
      decay_steps: Number of steps until the end, > 0.
      num_periods: Number of cosine waves until the end.
      alpha: Added to the line.
      beta: Added to the product.
      name: Name in the config.

    >>> float(LinearCosineDecay(1.0, 4, beta=0.0)(2))
    0.25
    """
    del name
    return linear_cosine_decay(
        initial_learning_rate, decay_steps, num_periods, alpha, beta
    )


@legacy_schedule
def NoisyLinearCosineDecay(
    initial_learning_rate: float,
    decay_steps: int,
    initial_variance: float = 1.0,
    variance_decay: float = 0.55,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
    seed: int | None = None,
    name: str | None = "NoisyLinearCosineDecay",
) -> Schedule:
    """`LinearCosineDecay` with decaying noise on its line, from Keras 2.

    Args:
      initial_learning_rate: The value at step 0 without noise, where ``alpha`` and
        ``beta`` are 0.
      decay_steps: Number of steps until the end, > 0.
      initial_variance: Variance of the noise at step 0, >= 0.
      variance_decay: Power of ``1 + t`` that divides the variance, >= 0.
      num_periods: Number of cosine waves until the end.
      alpha: Added to the line.
      beta: Added to the product.
      seed: Seed of the noise, which depends on it and the step only, and differs from
        that of Keras 2. None means 0, where Keras 2 draws a seed.
      name: Name in the config.

    >>> noisy = NoisyLinearCosineDecay(1.0, 4, beta=0.0, seed=1)
    >>> float(noisy(2)) == float(noisy(2)) != 0.25, float(noisy(4))
    (True, 0.0)
    """
    del name
    return noisy_linear_cosine_decay(
        initial_learning_rate,
        decay_steps,
        initial_variance,
        variance_decay,
        num_periods,
        alpha,
        beta,
        key=seed or 0,
    )
