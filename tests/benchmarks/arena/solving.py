"""Solvers in the arena. They have no learning rate, so nothing of theirs is tuned.

A step is an evaluation: of the loss and its gradient, or of the residuals and their
Jacobian. A solver takes at most as many as an optimizer. What it has after some steps
is the last point that it had accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jopt
from jopt.inspect import RaceTask
from jopt.inspect.racing.training import RECORDS, seeds_of
from tests.benchmarks.arena.problem import LeastSquares
from tests.benchmarks.arena.results import made_with, short


SOLVERS = {
    "lbfgs": "minimize(loss, params)",
    "levenberg_marquardt": "levenberg_marquardt(residuals, params)",
}
# Steps of Levenberg-Marquardt, as each makes a Jacobian.
JACOBIANS = 200

Measure = Callable[[Any], Any]  # the metric of parameters
# The metrics after the steps of a list, and the seconds of one step.
Solved = tuple[list[float], float]
NEVER = {"ftol": 0.0, "gtol": 0.0}  # it goes on to the last step


def solved(task: RaceTask, name: str, seeds: int) -> dict[str, Any]:
    """Let a solver run on a task; what it found, as data for JSON."""
    begin = time.perf_counter()
    measure = jax.jit(lambda params: task.measured(params, task.test))
    if name == "levenberg_marquardt":
        assert isinstance(task, LeastSquares)
        run, fun, most = by_levenberg_marquardt, task.residuals, JACOBIANS
    else:
        run, fun, most = by_lbfgs, _loss_of(task), task.steps
    # A solver does most of its good at the beginning.
    steps = np.geomspace(1, min(most, task.steps), RECORDS).round().astype(int)
    steps = np.unique(steps)
    starts = seeds_of(task, jax.random.key(0), seeds).params
    found = [
        run(fun, jax.tree.map(lambda x, i=i: x[i], starts), steps, measure)
        for i in range(seeds)
    ]
    curves = np.array([curve for curve, _ in found], float)
    return {
        "recipe": SOLVERS[name],
        "rates": [],
        "means": [],
        "rate": None,
        "scores": short(curves[:, -1]),
        "usual rate": None,
        "usual scores": [],
        "at edge": False,
        "steps": steps.tolist(),
        "curve": short(curves.mean(0)),
        "seconds per step": short(min(seconds for _, seconds in found)),
        "seconds": round(time.perf_counter() - begin),
        "with": made_with(),
    }


def by_lbfgs(fun: Any, params: Any, steps: np.ndarray, measure: Measure) -> Solved:
    """`minimize`, step by step to record it, and as one loop to time it."""
    seen = [(1, float(measure(params)))]

    def callback(result):
        if result.evaluations > steps[-1]:
            return True
        seen.append((int(result.evaluations), float(measure(result.params))))
        return False

    jopt.minimize(fun, params, **NEVER, callback=callback)
    curve = [next(x for i, x in reversed(seen) if i <= step) for step in steps]
    taken = max(len(seen) - 1, 1)
    return curve, _seconds_per_step(
        lambda: jopt.minimize(fun, params, **NEVER, max_iterations=taken)
    )


def by_levenberg_marquardt(
    fun: Any, params: Any, steps: np.ndarray, measure: Measure
) -> Solved:
    """`levenberg_marquardt`, once more from the beginning for each record."""

    def run(n):
        return jopt.levenberg_marquardt(
            fun, params, **NEVER, xtol=0.0, max_iterations=int(n)
        )

    # The first evaluation is that of the start.
    curve = [float(measure(run(n - 1).params if n > 1 else params)) for n in steps]
    return curve, _seconds_per_step(lambda: run(steps[-1]))


def _loss_of(task: RaceTask) -> Callable[[Any], jax.Array]:
    """The loss of a task without noise."""
    batch, key = task.train(jax.random.key(0)), jax.random.key(0)
    return lambda params: task.loss(params, batch, key)


def _seconds_per_step(run: Callable[[], Any]) -> float:
    """The time of an evaluation in a run that is compiled."""
    jax.block_until_ready(run())
    start = time.perf_counter()
    found = jax.block_until_ready(run())
    return (time.perf_counter() - start) / int(found.evaluations)
