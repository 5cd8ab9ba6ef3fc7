"""torch's ChainedScheduler, whose schedulers change one learning rate in turn.

At step t each scheduler changes the rate that the ones before it have left:

    most                  multiply it by f(t) / f(t - 1), and by f(0) at step 0
    CosineAnnealingLR     move it: eta_min + (lr - eta_min) c(t) / c(t - 1), where
                          c(t) = 1 + cos(pi t / T_max)
    SWALR                 move it to swa_lr by the share of its way that is left
    LambdaLR, CyclicLR,   set it, whatever it was
    CosineAnnealingWarmRestarts, OneCycleLR
    SequentialLR          as the scheduler that is on; step 0 and each milestone set it
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from jopt.core.factory import Schedule, schedule
from jopt.interop.shared.plateau import Change
from jopt.interop.torch.lr_scheduler.calls import (
    recipe_arguments,
    recipe_name,
    scheduler,
)
from jopt.schedules import ramp
from jopt.schedules.averaging import swa_schedule
from jopt.schedules.decay import constant_schedule
from jopt.schedules.product import multiply_schedules
from jopt.tree import ratio, scalar_dtype
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# The schedules that they are here. These have the value ``lr`` times a factor:
MULTIPLY = {
    *("exponential_decay", "piecewise_constant", "piecewise_constant_schedule"),
    *("linear_schedule", "polynomial_schedule", "multiplicative_schedule"),
    *("constant_schedule", "signed_decay"),
}
SET = {
    *("multiply_schedules", "cyclic_schedule", "cosine_decay_restarts"),
    "onecycle_schedule",
}
JOIN, SWA = "join_schedules", "swa_schedule"


@scheduler
def ChainedScheduler(schedulers: Sequence[Schedule], lr: float) -> Schedule:
    """Several schedules that change one learning rate in turn.

    The schedulers that multiply the rate give ``lr`` times all their factors. In torch
    `LambdaLR`, `CyclicLR`, `CosineAnnealingWarmRestarts` and `OneCycleLR` set the rate
    at every step, regardless of those before them in the list. Those behind them then
    multiply it only by their own last change. For a product of functions, use
    `jopt.multiply_schedules`; to run one after another, `SequentialLR`.

    Args:
      schedulers: Schedules for the same learning rate, made by the functions of this
        module; or lists of them, with one for each parameter group. With
        `CosineAnnealingLR`, `SWALR` and `SequentialLR` every step goes through all
        steps before it, unless one behind it sets the rate.
      lr: The learning rate, > 0 if a scheduler moves or sets it.

    Raises:
      ValueError: ``schedulers`` is empty, or one of them cannot be chained.

    >>> from jopt.interop.torch.lr_scheduler import ConstantLR, ExponentialLR
    >>> both = [ConstantLR(0.5, 0.5), ExponentialLR(0.5, 0.5)]
    >>> float(ChainedScheduler(both, 0.5)(1))
    0.125
    """
    if not schedulers:
        raise ValueError("ChainedScheduler needs at least one scheduler, got none")
    schedulers = [part for s in schedulers for part in _links(s)]
    for part in schedulers:
        _check(part)
    if all(_name(part) in MULTIPLY for part in schedulers):
        if arguments.known(lr) == 0:
            return constant_schedule(0.0)
        parts = [part for s in schedulers for part in (s, 1 / lr)]
        return multiply_schedules([lr, *parts])
    arguments.positive(lr=lr)  # products that are all 0 would hide their factors
    return chained_schedule(schedulers, lr)


@schedule
def chained_schedule(schedules: Sequence[Schedule], lr: float) -> ramp.Function:
    """Let schedules change one learning rate in turn; see `ChainedScheduler`.

    Args:
      schedules: The schedules.
      lr: The learning rate.

    Returns:
      A schedule.
    """
    changes = [_change(part, lr) for part in schedules]
    sets = any(map(_sets, schedules))

    def change(step, rate):
        for f in changes:
            rate = f(step, rate)
        return rate

    def function(count):
        steps = jnp.maximum(count, 0)
        start = jnp.full(steps.shape, lr, scalar_dtype())
        if sets:  # all that was before does not matter
            return change(steps, start)

        def advance(i, rate):
            return jnp.where(i <= steps, change(i, rate), rate)

        last = jnp.max(steps, initial=0) + 1
        return lax.fori_loop(jnp.zeros_like(last), last, advance, start)

    return function


def change_of(part: Any) -> Change | None:
    """Return how a schedule changes the rate that it finds, after step 0.

    Args:
      part: A schedule.

    Returns:
      A function of the step and the rate before; None if the rate stays a multiple of
      the schedule.
    """
    if recipe_name(part) == "chained_schedule":
        changes = [_change(x, 1.0) for x in recipe_arguments(part)["schedules"]]
        return lambda step, rate: functools.reduce(
            lambda rate, change: change(step, rate), changes, rate
        )
    try:
        _check(part)
    except ValueError:  # it is none of torch's
        return None
    if _name(part) in MULTIPLY or len(_links(part)) > 1:
        return None
    return _change(part, 1.0)


def _name(part: Any) -> str:
    name = recipe_name(part)
    if name == "affine_schedule":  # what CosineAnnealingWarmRestarts is for lr=0
        return recipe_name(recipe_arguments(part)["schedule"])
    return name


def _links(part: Any) -> list[Any]:
    """Return the schedules of a chain inside a chain; otherwise the schedule."""
    given = recipe_arguments(part)
    if recipe_name(part) == "chained_schedule":
        return list(given["schedules"])
    factors = given.get("schedules", [])
    # As ChainedScheduler makes it: [lr, first, 1 / lr, second, 1 / lr, …].
    if recipe_name(part) == "multiply_schedules" and len(factors) > 2:
        return list(factors[1::2])
    return [part]


def _check(part: Any) -> None:
    if _name(part) == JOIN:
        for inner in recipe_arguments(part)["schedules"]:
            _check(inner)
    elif _name(part) not in MULTIPLY | SET | {SWA}:
        raise ValueError(
            "ChainedScheduler takes schedulers that multiply, move or set lr, got "
            f"{abbreviated(part)}"
        )


def _sets(part: Schedule) -> bool:
    return _name(part) in SET and recipe_arguments(part).get("shape") != "cosine"


def _change(part: Schedule, lr: float) -> Change:
    """Return the function of the step and the rate that makes a scheduler's change."""

    def now(step) -> Any:
        return jnp.asarray(part(step), scalar_dtype())

    def before(step):
        return now(jnp.maximum(step - 1, 0))

    def multiply(step, rate):
        last = jnp.where(step == 0, lr, before(step))
        # A factor that has come to 0 changes no rate from then on.
        return rate * jnp.where(last == 0, 1, ratio(now(step), last))

    if _name(part) in MULTIPLY:
        return multiply
    if _sets(part):
        return lambda step, rate: now(step)
    given = recipe_arguments(part)
    if _name(part) == JOIN:
        return _turns(given["schedules"], given["boundaries"], lr)
    if _name(part) == SWA:
        return _approach(given)
    lowest, length = given["peak_value"], given["up_steps"]

    def move(step, rate):
        height, last_height = now(step) - lowest, before(step) - lowest
        moved = lowest + ratio(height, last_height) * (rate - lowest)
        # From the lowest point, where there is no quotient, torch adds.
        at_lowest = (step > length) & ((step - 1 - length) % (2 * length) == 0)
        moved = jnp.where(at_lowest, rate + height, moved)
        return jnp.where(step == 0, rate, moved)

    return move


def _approach(given: dict[str, Any]) -> Change:
    """Return the change of SWALR, which keeps the share of the way that is left."""
    one = constant_schedule(1.0)
    left = swa_schedule(**{**given, "schedule": one, "swa_lr": 0.0})

    def move(step, rate):
        now, before = (
            jnp.asarray(left(jnp.maximum(s, 0)), scalar_dtype())
            for s in (step, step - 1)
        )
        moved = given["swa_lr"] + ratio(now, before) * (rate - given["swa_lr"])
        return jnp.where(step == 0, rate, moved)

    return move


def _turns(parts: Sequence[Schedule], milestones: Sequence[int], lr: float) -> Change:
    """Return the change of SequentialLR."""
    begins = [0, *milestones]
    changes = [_change(part, lr) for part in parts]

    def change(step, rate):
        result = rate
        for begin, part, f in zip(begins, parts, changes, strict=True):
            own = jnp.maximum(step - begin, 0)
            if begin == 0:
                first = f(own, jnp.full_like(rate, lr))
            elif _name(part) == SWA:
                first = rate
            elif _name(part) == "multiplicative_schedule":
                first = rate * recipe_arguments(part)["factor_fn"](own)
            else:
                first = jnp.asarray(part(own), rate.dtype)
            value = jnp.where(own == 0, first, f(own, rate))
            result = jnp.where(step >= begin, value, result)
        return result

    return change
