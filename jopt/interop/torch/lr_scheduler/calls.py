"""How the schedulers are called: with the learning rate in the optimizer's place."""

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
# Arguments of all that have one of the name.
RATES = ("lr", "base_lr", "max_lr", "swa_lr", "eta_min", "min_lr", "factor", "gamma")
LENGTHS = (
    *("step_size", "total_iters", "total_steps", "T_max", "T_0", "T_mult"),
    *("step_size_up", "step_size_down", "epochs", "steps_per_epoch", "anneal_epochs"),
)
Value = TypeVar("Value")
HINTS = {
    "optimizer": "It takes the learning rate, and goes into the optimizer as lr.",
    "last_epoch": "It is a function of the step, which the state counts.",
    "cycle_momentum": "Give the optimizer a momentum of its own, CyclicMomentum or "
    "OneCycleMomentum.",
}


def scheduler(build: Callable[P, Value]) -> Callable[P, Value]:
    """Decorates a scheduler: its arguments are checked by their annotations.

    Args:
      build: Makes the schedule.
    """
    signature = inspect.signature(build, eval_str=True)

    @functools.wraps(build)
    def make(*args, **kwargs):
        if args and isinstance(args[0], GradientTransformation):
            raise TypeError(
                f"{build.__name__} takes the learning rate in the place of the "
                f"optimizer, got {abbreviated(args[0])}: {build.__name__}(0.1, "
                "…) is then the lr of the optimizer"
            )
        for name in HINTS.keys() & kwargs.keys():
            raise TypeError(f"{build.__name__} has no argument {name!r}. {HINTS[name]}")
        bound = bind(build, signature, args, kwargs)
        given = bound.arguments
        arguments.nonnegative(**{n: given[n] for n in RATES if n in given})
        lengths = {n: given[n] for n in LENGTHS if given.get(n) is not None}
        arguments.at_least(1, **lengths)
        return build(*bound.args, **bound.kwargs)

    return make
