"""torch's schedulers that decay the rate, and the one that joins others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from jopt.core.factory import Schedule
from jopt.interop.torch.lr_scheduler.calls import (
    recipe_arguments,
    recipe_name,
    scheduler,
)
from jopt.interop.torch.lr_scheduler.powers import signed_decay
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
from jopt.values.arguments import text_of


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
    lr: float, lr_lambda: Callable[[Any], Any], total_steps: int | None = None
) -> Schedule:
    """``lr`` times the product of a function at all steps so far.

    Args:
      lr: The learning rate.
      lr_lambda: The factor at each step, a function as for `LambdaLR`.
      total_steps: The last step that multiplies, if there is one. It is needed if the
        function cannot be compiled, and it is faster for more than 10,000 steps.

    >>> float(MultiplicativeLR(0.5, lambda step: 0.5)(2))
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
    if arguments.known(gamma) == 0:
        return piecewise_constant([step_size], [lr, 0.0])
    if _is_negative(gamma):
        return signed_decay(lr, step_size, gamma)
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
    if _is_negative(gamma):
        values = [lr]
        for n in times.values():
            values.append(values[-1] * gamma**n)
        return piecewise_constant(list(times), values)
    return piecewise_constant_schedule(lr, {m: gamma**n for m, n in times.items()})


def _is_negative(gamma: float) -> bool:
    return arguments.known(gamma) is not None and gamma < 0


@scheduler
def ConstantLR(lr: float, factor: float = 1 / 3, total_iters: int = 5) -> Schedule:
    """``lr factor`` before step ``total_iters``, ``lr`` from then on.

    Args:
      lr: The learning rate.
      factor: Factor of the first steps, in [0, 1].
      total_iters: Number of steps with the factor; with 0 it stays, as in torch.

    >>> [float(ConstantLR(0.5, 0.5)(t)) for t in (4, 5)]
    [0.25, 0.5]
    """
    arguments.fraction(factor=factor)
    if not total_iters:
        return constant_schedule(lr * factor)
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
      start_factor: Factor at step 0, in (0, 1].
      end_factor: Factor from step ``total_iters`` on, in [0, 1].
      total_iters: Number of steps between them; with 0 the first factor stays, as in
        torch.

    >>> [float(LinearLR(0.5, 0.5, total_iters=4)(t)) for t in (0, 2, 4)]
    [0.25, 0.375, 0.5]
    """
    arguments.positive(start_factor=start_factor)
    arguments.fraction(start_factor=start_factor, end_factor=end_factor)
    if not total_iters:
        return constant_schedule(lr * start_factor)
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
    if arguments.known(gamma) == 0 or _is_negative(gamma):
        return StepLR(lr, 1, gamma)
    return exponential_decay(lr, 1, gamma)


@scheduler
def PolynomialLR(lr: float, total_iters: int = 5, power: float = 1.0) -> Schedule:
    """Polynomial decay: ``lr (1 - t / total_iters)^power``, then 0.

    Args:
      lr: The learning rate at step 0.
      total_iters: Number of steps until 0; with 0 the rate stays, as in torch.
      power: Exponent, >= 0; 1 gives a straight line, 0 a constant.

    >>> float(PolynomialLR(0.5, 4, power=2.0)(2))
    0.125
    """
    if not total_iters or arguments.known(power) == 0:
        return constant_schedule(lr)
    return polynomial_schedule(lr, 0.0, power, total_iters)


@scheduler
def SequentialLR(
    lr: Any = None, schedulers: Any = None, milestones: Sequence[int] | None = None
) -> Schedule:
    """One schedule after the other, each starting from its own step 0.

    As in torch, `SWALR` and `MultiplicativeLR` go on from the rate before them.

    Args:
      lr: The learning rate, in the place of torch's optimizer. It may be left out, and
        changes nothing: the schedules have it already.
      schedulers: Schedules, each with its own learning rate; or lists of them, with one
        for each parameter group.
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
    joined = join_schedules(schedulers, milestones)
    parts = list(schedulers)
    for i, milestone in enumerate(milestones, 1):
        if go_on := CONTINUE.get(recipe_name(parts[i])):
            before = join_schedules(parts[:i], milestones[: i - 1])
            parts[i] = go_on(recipe_arguments(parts[i]), before, milestone - 1)
            joined = join_schedules(parts, milestones)
    return joined


def _swa_after(given: dict[str, Any], before: Schedule, step: int) -> Schedule:
    lr = constant_schedule(_number(lambda: before(step)))
    return swa_schedule(**{**given, "schedule": lr})


def _product_after(given: dict[str, Any], before: Schedule, step: int) -> Schedule:
    # In torch the first factor is used too, at the milestone.
    lr = _number(lambda: before(step) * given["factor_fn"](0))
    return multiplicative_schedule(**{**given, "init_value": lr})


def _number(compute: Callable[[], Any]) -> Any:
    """Return what is computed as a number, unless it is traced."""
    with jax.ensure_compile_time_eval():
        value = compute()
    known = arguments.known(value)
    return value if known is None else known


# The schedulers that have no rate of their own when they begin at a milestone.
CONTINUE = {
    "swa_schedule": _swa_after,
    "multiplicative_schedule": _product_after,
}


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
      anneal_epochs: Number of steps between them, >= 0.
      anneal_strategy: Shape of the change: ``"cos"`` or ``"linear"``.

    >>> [float(SWALR(0.5, 0.25, 4)(t)) for t in (0, 2, 4)]
    [0.5, 0.375, 0.25]
    """
    arguments.one_of(("cos", "linear"), anneal_strategy=anneal_strategy)
    if not anneal_epochs:  # a value that is set, unlike that of `ConstantLR`
        return multiply_schedules([swa_lr])
    before = constant_schedule(lr)
    return swa_schedule(before, 0, swa_lr, anneal_epochs, anneal_strategy)
