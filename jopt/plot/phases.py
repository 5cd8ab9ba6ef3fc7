"""The phases of a schedule, read from the call that made it: warmup, decay, …"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, count, takewhile
from typing import Any, NamedTuple


CONSTANT = "constant"  # the last phase of a schedule that ends


class Phase(NamedTuple):
    """A part of a schedule; the next one ends it."""

    start: float  # the first step, which may lie between two
    name: str  # such as "warmup"; empty for the pieces of a piecewise schedule


def phases(schedule: Any, steps: float) -> list[Phase]:
    """The phases of a schedule that begin before a step; none if they are not known.

    >>> import jopt
    >>> cosine = jopt.warmup_cosine(1.0, warmup_steps=5, total_steps=50)
    >>> for phase in phases(cosine, 90):
    ...     print(*phase)
    0 warmup
    5 decay
    50 constant
    """
    recipe = getattr(schedule, "recipe", None)
    if recipe is None or recipe.name not in _RULES:
        return []
    rule = _RULES[recipe.name]
    defaults = {
        name: parameter.default
        for name, parameter in recipe.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    result: list[Phase] = []
    for start, name in rule(defaults | recipe.arguments, steps):
        while result and start <= result[-1].start:
            result.pop()  # it has no steps
        if start < steps:
            result.append(Phase(start, name))
    return result


def end(schedule: Any) -> float | None:
    """The step from which on a schedule is constant; None if there is none known."""
    known = phases(schedule, float(2**31))
    last = known[-1] if known else Phase(0, "")
    return last.start if last.name == CONSTANT and last.start > 0 else None


Phases = Iterable[tuple[float, str]]
Arguments = Mapping[str, Any]


def _warmup_decay(total: str) -> Callable[[Arguments, float], Phases]:
    return lambda a, _: [
        (0, "warmup"),
        (a["warmup_steps"], "decay"),
        (a[total], CONSTANT),
    ]


def _warmup_exponential(a: Arguments, _: float) -> Phases:
    begin = a["warmup_steps"] + a["transition_begin"]
    return [(0, "warmup"), (a["warmup_steps"], "stable"), (begin, "decay")]


def _warmup_stable_decay(a: Arguments, _: float) -> Phases:
    yield from [(0, "warmup"), (a["warmup_steps"], "stable")]
    yield from [(a["total_steps"] - a["decay_steps"], "decay")]
    yield a["total_steps"], CONSTANT


def _transition(a: Arguments, _: float) -> Phases:
    begin = a["transition_begin"]
    rises = a.get("end_value") is not None and bool(a["init_value"] < a["end_value"])
    end = begin + a["transition_steps"]
    yield from [(0, "stable"), (begin, "rise" if rises else "decay"), (end, CONSTANT)]


def _decay(a: Arguments, _: float) -> Phases:
    return [(0, "decay"), (a["decay_steps"], CONSTANT)]


def _restarts(a: Arguments, steps: float) -> Phases:
    lengths = (a["first_decay_steps"] * a["t_mul"] ** i for i in count())
    return _cycles(accumulate(lengths, initial=0), steps)


def _cycles(starts: Iterable[float], steps: float) -> Phases:
    for i, start in enumerate(takewhile(lambda x: x < min(steps, 1e6), starts)):
        yield start, f"cycle {i + 1}"
        if i > 100:  # more than anybody can see
            return


def _cyclic(a: Arguments, steps: float) -> Phases:
    down = a["up_steps"] if a["down_steps"] is None else a["down_steps"]
    return _cycles(count(0, a["up_steps"] + down), steps)


def _sgdr(a: Arguments, _: float) -> Phases:
    start = 0
    for cycle in a["cosine_kwargs"]:
        yield start, "warmup"
        yield start + cycle["warmup_steps"], "decay"
        start += cycle["decay_steps"]
    yield start, CONSTANT


def _onecycle(total: str, shift: int) -> Callable[[Arguments, float], Phases]:
    def rule(a, _):
        steps, start = a[total], a["pct_start"]
        yield 0, "rise"
        yield start * steps - shift, "fall"
        if a.get("three_phase"):
            yield 2 * (start * steps - shift), "final"
        elif "pct_final" in a:
            yield a["pct_final"] * steps, "final"
        yield steps - shift, CONSTANT

    return rule


def _boundaries(a: Arguments, _: float) -> Phases:
    steps = a["boundaries"] if "boundaries" in a else a["boundaries_and_scales"]
    return [(0, ""), *((step, "") for step in sorted(steps or ()))]


def _joined(a: Arguments, steps: float) -> Phases:
    starts = [0, *a["boundaries"]]
    ends = [*a["boundaries"], steps]
    for part, start, end in zip(a["schedules"], starts, ends, strict=True):
        for phase in phases(part, end - start) or [Phase(0, "")]:
            yield start + phase.start, phase.name


def _affine(a: Arguments, steps: float) -> Phases:
    return phases(a["schedule"], steps)


def _product(a: Arguments, steps: float) -> Phases:
    """Those of the factors; without names if several have some."""
    known = list(filter(None, (phases(x, steps) for x in a["schedules"])))
    if len(known) < 2:
        return known[0] if known else []
    return [(start, "") for start in sorted({x.start for part in known for x in part})]


def _swa(a: Arguments, steps: float) -> Phases:
    yield from phases(a["schedule"], min(a["start"], steps)) or [(0, "")]
    yield a["start"], "average"


def _per_micro_step(a: Arguments, steps: float) -> Phases:
    n = a["steps"]
    return ((x.start / n, x.name) for x in phases(a["schedule_fn"], steps * n))


def _per_epoch(a: Arguments, steps: float) -> Iterator[tuple[float, str]]:
    n = a["steps_per_epoch"]
    return ((x.start * n, x.name) for x in phases(a["schedule_fn"], steps / n))


_RULES: dict[str, Callable[[Arguments, float], Phases]] = {
    "affine_schedule": _affine,
    "cosine_decay_restarts": _restarts,
    "cosine_decay_schedule": _decay,
    "cosine_onecycle_schedule": _onecycle("transition_steps", 0),
    "cyclic_schedule": _cyclic,
    "epoch_schedule": _per_epoch,
    "join_schedules": _joined,
    "linear_cosine_decay": _decay,
    "linear_onecycle_schedule": _onecycle("transition_steps", 0),
    "linear_schedule": _transition,
    "micro_step_schedule": _per_micro_step,
    "multiply_schedules": _product,
    "noisy_linear_cosine_decay": _decay,
    "onecycle_schedule": _onecycle("total_steps", 1),
    "piecewise_constant": _boundaries,
    "piecewise_constant_schedule": _boundaries,
    "piecewise_interpolate_schedule": _boundaries,
    "polynomial_schedule": _transition,
    "rex_schedule": _transition,
    "sgdr_schedule": _sgdr,
    "swa_schedule": _swa,
    "warmup_constant_schedule": lambda a, _: [
        (0, "warmup"),
        (a["warmup_steps"], CONSTANT),
    ],
    "warmup_cosine": _warmup_decay("total_steps"),
    "warmup_cosine_decay_schedule": _warmup_decay("decay_steps"),
    "warmup_exponential_decay_schedule": _warmup_exponential,
    "warmup_inverse_sqrt": lambda a, _: [(0, "warmup"), (a["warmup_steps"], "decay")],
    "warmup_linear": _warmup_decay("total_steps"),
    "warmup_stable_decay": _warmup_stable_decay,
}
