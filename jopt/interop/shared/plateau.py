"""A plateau that changes the learning rate itself, wherever the optimizer has it.

A scheduled rate is a tunable number in the optimizer that runs, which gets the rate of
each step from here: the schedule's, times what the plateaus so far have left of it. A
door whose schedulers change the rate that they find gives their `Change`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.around import VALUE, around
from jopt.core.changing_numbers import scheduled
from jopt.core.transformation import GradientTransformation
from jopt.state.hyperparams import (
    RATE,
    changing_numbers_of,
    holders,
    numbers_of,
    selected,
    set_hyperparams,
)
from jopt.transforms.plateau import ReduceOnPlateauState, reduce_on_plateau
from jopt.values.arguments import abbreviated
from jopt.values.numbers import Tunable, tunable
from jopt.values.recipe import spread


RATES = f"*/{RATE}"
# The rate of a step, from the step and the rate of the step before.
Change = Callable[[jax.Array, jax.Array], jax.Array]


class ReduceLROnPlateauState(NamedTuple):
    """State of `ReduceLROnPlateau`: that of `reduce_on_plateau` without its scale."""

    best_value: jax.Array  # best value so far, infinitely bad at first
    plateau_count: jax.Array  # consecutive values without improvement
    cooldown_count: jax.Array  # values left that do not count
    avg_count: jax.Array  # number of values in the current mean
    avg_value: jax.Array  # mean of these values
    inner_state: Any  # state of the optimizer, which has the learning rate
    scales: Any = {}  # noqa: RUF012  factor of each scheduled rate, by its path
    steps: Any = {}  # noqa: RUF012  step of each rate whose schedulers change it


KEPT = ReduceLROnPlateauState._fields[:5]


def reducing(
    optimizer: GradientTransformation,
    factor: float,
    patience: int,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    cooldown: int,
    steps_per_epoch: int,
    lowest: Callable[[str], float],
    rule: Literal["keras", "torch"],
    mode: Literal["min", "max"],
    eps: float = 0.0,
    change_of: Callable[[Any], Change | None] = lambda schedule: None,
    needs_rate: bool = True,
) -> GradientTransformation:
    """Make a transformation that reduces the learning rates of an optimizer.

    Args:
      optimizer: The optimizer.
      factor: Factor of each reduction.
      patience, rtol, atol, cooldown, rule, mode: See `reduce_on_plateau`.
      steps_per_epoch: Number of updates whose mean value counts as one value.
      lowest: The lowest rate, by the path of a rate in the optimizer's state.
      eps: A reduction by no more than this is skipped.
      change_of: How a schedule changes the rate that it finds; None means that the
        rate is a multiple of the schedule.
      needs_rate: Whether an optimizer without a learning rate is refused.

    Returns:
      A transformation whose update needs ``value``.
    """
    # Its scale starts at 1 in every step, so any factor tells whether it reduces.
    judge = reduce_on_plateau(
        0.5,
        patience,
        rtol=rtol,
        atol=atol,
        cooldown=cooldown,
        accumulation_size=steps_per_epoch,
        rule=rule,
        mode=mode,
    )
    free, schedules = without_schedules(optimizer)
    changes = {path: change_of(schedule) for path, schedule in schedules.items()}

    def init(params):
        inner_state = optimizer.init(params)
        if needs_rate:  # raises where there is no rate that can be set
            set_hyperparams(free, inner_state, **{RATES: lowest("") or 1.0})
        judged = judge.init(())
        return ReduceLROnPlateauState(
            **{name: getattr(judged, name) for name in KEPT},
            inner_state=inner_state,
            scales={x: tree.scalar(1.0) for x, f in changes.items() if f is None},
            steps={x: jnp.zeros((), jnp.int32) for x, f in changes.items() if f},
        )

    def of_this_step(state):
        """The rates by path, as their schedules give them, and the schedules' steps."""
        numbers = numbers_of(state.inner_state)
        names = selected(RATES, numbers.paths)
        rates = {numbers.paths[name]: numbers[name] for name in names}
        counts = {
            tree.path_name((*keys, jax.tree_util.GetAttrKey(RATE))): holder.count
            for keys, holder in holders(state.inner_state, "hyperparameters")
            if RATE in holder._fields
        }
        for path, schedule in schedules.items():
            count, change = counts[path], changes[path]
            if change is None:
                rates[path] = state.scales[path] * scheduled(RATE, schedule, count)
            else:
                changed = change(count, rates[path])
                stays = count == state.steps[path]
                rates[path] = jnp.where(stays, rates[path], changed)
        return rates, {path: counts[path] for path in state.steps}

    def update(updates, state, params=None, *, value, metric=None, **extra):
        kept = {name: getattr(state, name) for name in KEPT}
        before = ReduceOnPlateauState(scale=jnp.ones_like(state.avg_value), **kept)
        judged = value if metric is None else metric
        _, after = judge.update((), before, value=judged)
        rates, steps = of_this_step(state)
        lower, scales = {}, {}
        for path, rate in rates.items():
            # A rate that was set below the lowest one stays.
            new = jnp.maximum(factor * rate, lowest(path))
            reduces = (after.scale < 1) & (rate - new > eps)
            lower[path] = jnp.where(reduces, new, rate)
            if path in state.scales:
                share = jnp.where(reduces, new / jnp.where(reduces, rate, 1), 1)
                scales[path] = state.scales[path] * share
        inner_state = set_hyperparams(free, state.inner_state, **lower)
        updates, inner_state = free.update(
            updates, inner_state, params, value=value, **extra
        )
        kept = {name: getattr(after, name) for name in KEPT}
        new_state = ReduceLROnPlateauState(
            **kept, inner_state=inner_state, scales=scales, steps=steps
        )
        return updates, new_state

    also = VALUE._replace(accepts=VALUE.accepts | {"metric"}, requires=VALUE.accepts)
    return around(optimizer, init, update, ReduceLROnPlateauState, also=also)


def without_schedules(
    optimizer: GradientTransformation,
) -> tuple[GradientTransformation, dict[str, Any]]:
    """Return an optimizer with tunable rates, and the schedules that it had for them.

    Args:
      optimizer: The optimizer.

    Returns:
      It with the same state and no scheduled rate, and its schedules by the path of
      their rate in the state.

    Raises:
      ValueError: A learning rate is scheduled, but by no argument of this name.

    >>> import jopt
    >>> without_schedules(jopt.sgd(jopt.exponential_decay(0.1, 10, 0.5)))[0]
    sgd(learning_rate=tunable(value=1.0))
    """
    free = _freed(optimizer)
    before, after = _schedules_of(optimizer), _schedules_of(free)
    changed = {path: f for path, f in before.items() if path not in after}
    for path in {*after, *changed}:
        if (path.rpartition("/")[2] == RATE) != (path in changed):
            raise ValueError(
                f"the number {path!r} follows the schedule {abbreviated(before[path])}"
                " of the learning rate, but only a schedule that is given as "
                "learning_rate, and used as that, can be reduced, in "
                f"{abbreviated(optimizer)}"
            )
    return free, changed


def _freed(value: Any, name: str = "") -> Any:
    """The same argument, with tunable numbers for the scheduled learning rates."""
    if isinstance(value, GradientTransformation) and value.recipe is not None:
        arguments = value.recipe.arguments
        new = {n: _freed(x, n) for n, x in arguments.items()}
        if all(new[n] is x for n, x in arguments.items()):
            return value
        args, kwargs = spread(value.recipe.parameters, new)
        return value.recipe.factory(*args, **kwargs)
    if type(value) is dict:
        new = {n: _freed(x, str(n)) for n, x in value.items()}
        return new if any(new[n] is not x for n, x in value.items()) else value
    kind: Any = type(value)
    if kind in (list, tuple):
        items = [_freed(x) for x in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else kind(items)
    is_rate = name.endswith(RATE) and not isinstance(value, Tunable)
    return tunable(1.0) if is_rate and callable(value) else value


def _schedules_of(tx: GradientTransformation) -> dict[str, Any]:
    """The schedules of a transformation by the path of their number in its state."""
    return {
        prefix + name: schedule
        for prefix, changing in changing_numbers_of(tx)
        for name, schedule in changing.schedules.items()
    }
