"""Calls of the schedulers, with the learning rate in place of the optimizer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from jopt.core.factory import bind
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.shared import number_of
from jopt.values import arguments
from jopt.values.arguments import abbreviated


P = ParamSpec("P")
# Arguments checked to be >= 0, and to be >= 1, in every scheduler that has them.
RATES = ("lr", "base_lr", "max_lr", "swa_lr", "eta_min", "min_lr", "factor")
LENGTHS = (
    *("step_size", "total_steps", "T_max", "T_0", "T_mult"),
    *("step_size_up", "step_size_down", "epochs", "steps_per_epoch"),
)
MAYBE_ZERO = ("total_iters", "anneal_epochs")
# Arguments that may be lists, with one value for each parameter group.
PER_GROUP = (
    *("lr", "base_lr", "max_lr", "swa_lr", "min_lr", "lr_lambda"),
    *("base_momentum", "max_momentum"),
)
Value = TypeVar("Value")
HINTS = {
    "optimizer": "Give it the learning rate, and give the result to the optimizer as "
    "lr.",
    "last_epoch": "The optimizer's state counts the steps.",
    "cycle_momentum": "Give the optimizer CyclicMomentum or OneCycleMomentum as its "
    "momentum.",
}


def scheduler(build: Callable[P, Value]) -> Callable[P, Value]:
    """Check the arguments of a scheduler by their annotations and names.

    The arguments `PER_GROUP` may be lists with one value for each parameter group. The
    result is then a list of schedules, for ``lr`` or ``momentum`` of the optimizer with
    these groups. So is that of schedulers which are such lists.

    Args:
      build: Makes the schedule.
    """
    signature = inspect.signature(build, eval_str=True)

    @functools.wraps(build)
    def make(*args, **kwargs):
        if args and isinstance(args[0], GradientTransformation):
            raise TypeError(
                f"{build.__name__} takes the learning rate in place of the optimizer, "
                f"got {abbreviated(args[0])}: give {build.__name__}(0.1, …) to the "
                "optimizer as lr"
            )
        for name in HINTS.keys() & kwargs.keys():
            raise TypeError(f"{build.__name__} has no argument {name!r}. {HINTS[name]}")
        args = tuple(number_of(x) for x in args)
        kwargs = {n: number_of(x) for n, x in kwargs.items()}
        by_name = dict(zip(signature.parameters, args, strict=False)) | kwargs
        by_name = {n: _by_group(n, x) for n, x in by_name.items()}
        if lists := {n: x for n, x in by_name.items() if _is_per_group(n, x)}:
            groups = _each(build.__name__, lists)
            schedules: Any = [make(**{**by_name, **group}) for group in groups]
            return schedules
        bound = bind(build, signature, args, kwargs, traced=True)
        values = bound.arguments
        arguments.nonnegative(**{n: values[n] for n in RATES if n in values})
        lengths = {n: values[n] for n in LENGTHS if values.get(n) is not None}
        arguments.at_least(1, **lengths)
        arguments.at_least(0, **{n: values[n] for n in MAYBE_ZERO if n in values})
        return build(*bound.args, **bound.kwargs)

    return make


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _by_group(name: str, value: Any) -> Any:
    """Turn schedulers with a list for the groups each into a list for each group."""
    # The first argument of SequentialLR may be its schedulers.
    if name not in ("lr", "schedulers") or not _is_list(value) or not value:
        return value
    if not all(map(_is_list, value)):
        return value
    lengths = [len(schedules) for schedules in value]
    if len(set(lengths)) > 1:
        raise ValueError(
            "the schedulers must have one schedule for each parameter group, but have "
            f"{lengths} schedules"
        )
    return [list(schedules) for schedules in zip(*value, strict=True)]


def _is_per_group(name: str, value: Any) -> bool:
    if name == "schedulers":
        return _is_list(value) and bool(value) and all(map(_is_list, value))
    is_list = name in PER_GROUP and _is_list(value)
    # The first argument of SequentialLR may be its list of schedules.
    return is_list and not (name == "lr" and any(map(callable, value)))


def _each(scheduler: str, lists: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the values of each group."""
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(
            f"the lists of {scheduler} must have one value for each parameter group, "
            f"got {', '.join(f'{n} values of {name}' for name, n in lengths.items())}"
        )
    columns = zip(*lists.values(), strict=True)
    return [dict(zip(lists, values, strict=True)) for values in columns]


def recipe_name(part: Any) -> str:
    """Return the name of the factory that made a schedule; or nothing."""
    return getattr(getattr(part, "recipe", None), "name", "")


def recipe_arguments(part: Any) -> dict[str, Any]:
    """Return the arguments that a schedule was made of."""
    return dict(getattr(getattr(part, "recipe", None), "arguments", {}))
