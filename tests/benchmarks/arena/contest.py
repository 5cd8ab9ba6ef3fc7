"""One optimizer on one problem, by the protocol of `jopt.inspect.race`.

Each tries the same number of rates; the grid grows until the best one is inside it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import jopt
from jopt.inspect.racing.entrants import Entrant, entrants
from jopt.inspect.racing.protocol import Grid, recipe_of, tuned
from jopt.inspect.racing.training import Program, seeds_of, tester
from tests.benchmarks.arena.field import FIELD, WITHOUT_DECAY
from tests.benchmarks.arena.problem import Problem
from tests.benchmarks.arena.results import made_with, short
from tests.benchmarks.arena.solving import SOLVERS, solved


# Rates of a grid: from the usual one up to a hundred times it, as small models take
# larger rates than those that the usual ones are for.
RATES, FACTOR = 5, 10**0.5


def field_of(problem: Problem) -> Mapping[str, str]:
    """The optimizers and solvers on a problem: calls by name."""
    optimizers = FIELD if problem.field is None else problem.field
    solvers = {name: SOLVERS[name] for name in problem.solvers}
    return {**optimizers, **problem.also, **solvers}


def schedule(name: str, steps: int) -> Any:
    """A linear warmup in the first twentieth, a linear decay in the last half."""
    warmup = steps // 20
    return jopt.warmup_stable_decay(
        1.0,
        warmup_steps=warmup,
        decay_steps=1 if name in WITHOUT_DECAY else steps // 2,
        total_steps=steps,
        init_value=1 / (warmup + 1),
        end_value=1.0 if name in WITHOUT_DECAY else 0.0,
    )


def contest(problem: Problem, name: str, seeds: int) -> dict[str, Any]:
    """Tune an optimizer on a problem; what it found, as data for JSON."""
    if name in problem.solvers:
        return solved(problem.task(), name, seeds)
    start, task = time.perf_counter(), problem.task()
    ((_, make, usual),) = entrants({name: field_of(problem)[name]})
    entrant = Entrant(name, make, usual * FACTOR ** (RATES // 2))
    program = Program(task, entrant, schedule(name, task.steps))
    grid, choose = Grid(RATES, FACTOR, -1.0), None
    if problem.goal is not None:
        choose = functools.partial(quickest, grid, problem.goal)
    starts = seeds_of(task, jax.random.key(0), seeds)
    found = tuned(program, entrant, grid, tester(task), starts, choose=choose)
    # The usual rate was the first of the grid before that grew.
    row, usually = found.best or 0, int(np.argmin(np.abs(found.rates - usual)))
    loss = found.runs.test
    return {
        "recipe": recipe_of(entrant, found.rate),
        "rates": short(found.rates),
        "means": short(loss.mean(1)),
        "rate": short(found.rate),
        "scores": short(loss[row]),
        "usual rate": short(usual),
        "usual scores": short(loss[usually]),
        "at edge": bool(found.at_edge),
        "steps": program.steps.tolist(),
        "curve": short(found.runs.validation[row].mean(0)),
        "seconds per step": short(float(np.median(found.runs.seconds[1:]))),
        "seconds": round(time.perf_counter() - start),
        "with": made_with(),
    }


def quickest(grid: Grid, goal: float, validation: np.ndarray) -> int | None:
    """The row of the rate that reaches the goal first, the middle of equal ones.

    Where none reaches it, the best at the end.
    """
    means = validation.mean(1)
    first = [record_of(goal, row) for row in means]
    known = [x for x in first if x is not None]
    if not known:
        return grid.best(validation[..., -1])
    equal = [i for i, x in enumerate(first) if x == min(known)]
    return equal[len(equal) // 2]


def record_of(goal: float, curve: Any) -> int | None:
    """The first record at or below the goal; None for a run that does not end there."""
    values = np.array(curve, float)
    return int(np.argmax(values <= goal)) if values[-1] <= goal else None
