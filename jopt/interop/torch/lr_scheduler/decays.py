"""torch's schedulers that decay the rate, and those that combine others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jopt.core.factory import Schedule
from jopt.interop.torch.lr_scheduler.calls import scheduler
from jopt.schedules.averaging import swa_schedule
from jopt.schedules.decay import (
    constant_schedule,
    exponential_decay,
    linear_schedule,
    polynomial_schedule,
)
from jopt.schedules.join import join_schedules
from jopt.schedules.piecewise import piecewise_constant, piecewise_constant_schedule
from jopt.schedules.product import multiplicative_schedule, multiply_schedules
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of


# Schedules with the value ``lr`` times a factor, also in torch.
MULTIPLY = {
    *("exponential_decay", "piecewise_constant", "piecewise_constant_schedule"),
    *("linear_schedule", "polynomial_schedule", "multiplicative_schedule"),
}


@scheduler
def LambdaLR(lr: float, lr_lambda: Callable[[Any], Any]) -> Schedule:
    """``lr`` times a function of the step.

    Args:
      lr: The learning rate.
      lr_lambda: A schedule, or another function of the integer step; under ``jit`` it
        needs ``jnp.where`` in place of ``if``.

    >>> float(LambdaLR(0.5, lambda step: 1 / (1 + step))(3))
    0.125
    """
    if not callable(lr_lambda):
        raise TypeError(
            f"lr_lambda must be a function of the step, got "
            f"lr_lambda={text_of(lr_lambda)}"
        )
    return multiply_schedules([lr, lr_lambda])


@scheduler
def MultiplicativeLR(
    lr: float, lr_lambda: Callable[[Any], Any], total_steps: int
) -> Schedule:
    """``lr`` times the product of a function at all steps so far.

    Args:
      lr: The learning rate.
      lr_lambda: The factor at each step, a function as for `LambdaLR`.
      total_steps: The last step that multiplies, because the products are a table.

    >>> float(MultiplicativeLR(0.5, lambda step: 0.5, total_steps=9)(2))
    0.125
    """
    return multiplicative_schedule(lr, lr_lambda, total_steps)


@scheduler
def StepLR(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """Staircase decay: ``lr gamma^floor(t / step_size)``.

    Args:
      lr: The learning rate at step 0.
      step_size: Number of steps between two drops, > 0.
      gamma: Factor of each drop.

    >>> float(StepLR(0.5, 30, gamma=0.5)(60))
    0.125
    """
    return exponential_decay(lr, step_size, gamma, staircase=True)


@scheduler
def MultiStepLR(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """``lr`` times ``gamma`` for every milestone reached.

    Args:
      lr: The learning rate at step 0.
      milestones: Steps; a step that occurs twice counts twice.
      gamma: Factor at each milestone.

    >>> [float(MultiStepLR(0.5, [3, 5], gamma=0.5)(t)) for t in (2, 3, 5)]
    [0.5, 0.25, 0.125]
    """
    if not isinstance(milestones, list | tuple):
        raise TypeError(
            f"milestones must be a list of steps, got milestones={text_of(milestones)}"
        )
    steps = [arguments.whole("milestones", m) for m in milestones]
    times = {m: steps.count(m) for m in sorted(steps)}
    return piecewise_constant_schedule(lr, {m: gamma**n for m, n in times.items()})


@scheduler
def ConstantLR(lr: float, factor: float = 1 / 3, total_iters: int = 5) -> Schedule:
    """``lr factor`` before step ``total_iters``, ``lr`` from then on.

    Args:
      lr: The learning rate.
      factor: Factor of the first steps, >= 0.
      total_iters: Number of steps with the factor, > 0.

    >>> [float(ConstantLR(0.5, 0.5)(t)) for t in (4, 5)]
    [0.25, 0.5]
    """
    return piecewise_constant([total_iters], [lr * factor, lr])


@scheduler
def LinearLR(
    lr: float,
    start_factor: float = 1 / 3,
    end_factor: float = 1.0,
    total_iters: int = 5,
) -> Schedule:
    """A line from ``lr start_factor`` to ``lr end_factor``.

    Args:
      lr: The learning rate.
      start_factor: Factor at step 0, in [0, 1].
      end_factor: Factor from step ``total_iters`` on, in [0, 1].
      total_iters: Number of steps between them, > 0.

    >>> [float(LinearLR(0.5, 0.5, total_iters=4)(t)) for t in (0, 2, 4)]
    [0.25, 0.375, 0.5]
    """
    arguments.fraction(start_factor=start_factor, end_factor=end_factor)
    return linear_schedule(lr * start_factor, lr * end_factor, total_iters)


@scheduler
def ExponentialLR(lr: float, gamma: float) -> Schedule:
    """Exponential decay: ``lr gamma^t``.

    Args:
      lr: The learning rate at step 0.
      gamma: Factor of each step.

    >>> float(ExponentialLR(0.5, 0.5)(2))
    0.125
    """
    return exponential_decay(lr, 1, gamma)


@scheduler
def PolynomialLR(lr: float, total_iters: int = 5, power: float = 1.0) -> Schedule:
    """Polynomial decay: ``lr (1 - t / total_iters)^power``, then 0.

    Args:
      lr: The learning rate at step 0.
      total_iters: Number of steps until 0, > 0.
      power: Exponent, > 0; 1 gives a straight line.

    >>> float(PolynomialLR(0.5, 4, power=2.0)(2))
    0.125
    """
    return polynomial_schedule(lr, 0.0, power, total_iters)


@scheduler
def SequentialLR(
    lr: Any = None, schedulers: Any = None, milestones: Sequence[int] | None = None
) -> Schedule:
    """One schedule after the other, each starting from its own step 0.

    Args:
      lr: The learning rate, in the place of torch's optimizer. It may be left out, and
        changes nothing: the schedules have it already.
      schedulers: Schedules, each with its own learning rate.
      milestones: The steps at which the second and later schedules begin.

    Raises:
      TypeError: ``schedulers`` or ``milestones`` is missing.

    >>> warmup, decay = LinearLR(0.5, 0.5, total_iters=4), ExponentialLR(0.5, 0.5)
    >>> schedule = SequentialLR(0.5, [warmup, decay], [4])
    >>> [float(schedule(t)) for t in (0, 4, 5)]
    [0.25, 0.5, 0.25]
    """
    if isinstance(lr, Sequence):  # the learning rate is left out
        lr, schedulers, milestones = None, lr, milestones or schedulers
    if schedulers is None or milestones is None:
        raise TypeError(
            "SequentialLR needs schedulers and milestones: the call is "
            "SequentialLR(lr, schedulers, milestones) or "
            "SequentialLR(schedulers, milestones)"
        )
    return join_schedules(schedulers, milestones)


@scheduler
def ChainedScheduler(schedulers: Sequence[Schedule], lr: float) -> Schedule:
    """``lr`` times the factors of several schedules.

    Args:
      schedulers: Schedules that multiply the same learning rate, made by `StepLR`,
        `MultiStepLR`, `ConstantLR`, `LinearLR`, `ExponentialLR`, `PolynomialLR` or
        `MultiplicativeLR`. torch's other schedulers set the rate regardless of the
        rest of the chain. To run one after another use `SequentialLR`.
      lr: The learning rate, > 0.

    Raises:
      ValueError: ``schedulers`` is empty, or one of them does not multiply ``lr``.

    >>> both = [ConstantLR(0.5, 0.5), ExponentialLR(0.5, 0.5)]
    >>> float(ChainedScheduler(both, 0.5)(1))
    0.125
    """
    arguments.positive(lr=lr)
    if not schedulers:
        raise ValueError("ChainedScheduler needs at least one scheduler, got none")
    for part in schedulers:
        recipe = getattr(part, "recipe", None)
        if recipe is None or recipe.name not in MULTIPLY:
            raise ValueError(
                "ChainedScheduler takes schedulers that multiply lr by a factor, got "
                f"{abbreviated(part)}"
            )
    parts = [part for s in schedulers for part in (s, 1 / lr)]
    return multiply_schedules([lr, *parts])


@scheduler
def SWALR(
    lr: float,
    swa_lr: float,
    anneal_epochs: int = 10,
    anneal_strategy: Literal["cos", "linear"] = "cos",
) -> Schedule:
    """From ``lr`` to the constant rate of stochastic weight averaging.

    To start from another schedule use `swa_schedule`.

    Args:
      lr: The learning rate at step 0.
      swa_lr: The learning rate from step ``anneal_epochs`` on.
      anneal_epochs: Number of steps between them, > 0.
      anneal_strategy: Shape of the change: ``"cos"`` or ``"linear"``.

    >>> [float(SWALR(0.5, 0.25, 4)(t)) for t in (0, 2, 4)]
    [0.5, 0.375, 0.25]
    """
    before = constant_schedule(lr)
    return swa_schedule(before, 0, swa_lr, anneal_epochs, anneal_strategy)
