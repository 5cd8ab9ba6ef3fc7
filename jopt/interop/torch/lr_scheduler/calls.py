"""Calls of the schedulers, with the learning rate in place of the optimizer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from jopt.core.factory import bind
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.arguments import abbreviated


P = ParamSpec("P")
# Arguments checked to be >= 0, and to be >= 1, in every scheduler that has them.
RATES = ("lr", "base_lr", "max_lr", "swa_lr", "eta_min", "min_lr", "factor", "gamma")
LENGTHS = (
    *("step_size", "total_iters", "total_steps", "T_max", "T_0", "T_mult"),
    *("step_size_up", "step_size_down", "epochs", "steps_per_epoch", "anneal_epochs"),
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
        bound = bind(build, signature, args, kwargs, traced=True)
        values = bound.arguments
        arguments.nonnegative(**{n: values[n] for n in RATES if n in values})
        lengths = {n: values[n] for n in LENGTHS if values.get(n) is not None}
        arguments.at_least(1, **lengths)
        return build(*bound.args, **bound.kwargs)

    return make
