"""Line searches try the steps of MINPACK, and survive what real functions do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.gradients.line_search import (
    AT_LIMIT,
    CONVERGED,
    FAILED,
    SEARCHING,
    TOO_MANY,
    TOO_NARROW,
    LineSearch,
    backtracking,
    strong_wolfe,
)
from tests.gradients.lines import FIRST_STEPS, LINES, TOLERANCES, Line


# Steps tried by scipy 1.17.1; see tests/tools/golden_line_search.py.
MINPACK = json.loads((Path(__file__).parent / "golden/dcsrch.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@jax.jit
def start(value: Any, slope: Any, step: Any, tolerances: Any) -> Any:
    *tolerances, most = tolerances
    return strong_wolfe(*tolerances, max_evaluations=most).start(value, slope, step)


@jax.jit
def advance(state: Any, value: Any, slope: Any, tolerances: Any) -> Any:
    *tolerances, most = tolerances
    return strong_wolfe(*tolerances, max_evaluations=most).advance(state, value, slope)


def searched(
    line: Line, first: float, tolerances: Any, dtype: Any = np.float64, most: int = 30
) -> tuple[Any, list[float]]:
    """The last state of a search, and the steps that it tried."""
    numbers = [np.asarray(x, dtype) for x in tolerances] + [most]
    state = start(*np.asarray((*line(0.0), first), dtype), numbers)
    steps = []
    while state.status == SEARCHING:
        steps.append(float(state.step))
        state = advance(state, *np.asarray(line(steps[-1]), dtype), numbers)
    return state, steps


@pytest.mark.parametrize("name", LINES)
def test_the_steps_are_those_of_minpack(name):
    for first in FIRST_STEPS:
        state, steps = searched(LINES[name], first, (*TOLERANCES[name], 1e-10))
        np.testing.assert_allclose(steps, MINPACK[name][str(first)], rtol=1e-9)
        assert state.status == CONVERGED
        value, slope = LINES[name](float(state.step))
        value_0, slope_0 = LINES[name](0.0)
        ftol, gtol = TOLERANCES[name]
        assert value <= value_0 + ftol * state.step * slope_0
        assert abs(slope) <= gtol * abs(slope_0)


@pytest.mark.parametrize("outside", [(math.nan, math.nan), (math.inf, math.nan)])
def test_a_value_that_is_not_finite_makes_the_step_shorter(outside):
    def line(t):  # defined below 1 only, with the minimum at 0.5
        return (-math.log1p(-t) - 2 * t, 1 / (1 - t) - 2) if t < 1 else outside

    state, steps = searched(line, 1000.0, (1e-3, 0.1, 0.1))
    assert state.status == CONVERGED and abs(state.step - 0.5) < 0.1
    # The steps that are not finite are not tried again.
    assert len(set(steps)) == len(steps) <= 10


def test_decreases_below_rounding_errors_are_judged_by_slopes():
    def line(t):  # phi(t) = 1e4 + (t - 1)^2 * 1e-5, whose values are all 1e4
        return 1e4, 2e-5 * (t - 1)

    for first in (1e-2, 0.3, 7.0):
        state, steps = searched(line, first, (1e-3, 0.1, 0.1), np.float32)
        assert state.status == CONVERGED and abs(state.step - 1) <= 0.1 + 1e-6
        assert len(steps) <= 6


def test_a_value_that_is_higher_by_rounding_errors_is_accepted():
    def line(t):
        noise = 1e-7 if t > 0 else 0.0
        return 1.0 + noise, 1e-9 * (t - 1)

    assert searched(line, 1.0, (1e-3, 0.9, 0.1), np.float32)[0].status == CONVERGED


def test_a_search_that_cannot_succeed_says_why():
    def narrow(t):
        return abs(t - 1), math.copysign(1, t - 1)

    tolerances = (1e-3, 0.1, 0.1)
    assert searched(lambda t: (t, 1.0), 1.0, tolerances)[0][:2] == (0, FAILED)
    assert searched(lambda t: (t, -1.0), 1.0, tolerances)[0][:2] == (0, FAILED)
    assert searched(lambda t: (math.nan, -1.0), 1.0, tolerances)[0][:2] == (0, FAILED)
    assert searched(lambda t: (-t, -1.0), 1.0, tolerances)[0][:2] == (1e10, AT_LIMIT)
    state, _ = searched(narrow, 0.3, tolerances)
    assert state.status == TOO_NARROW and abs(state.step - 1) < 0.1
    state, _ = searched(LINES["rational"], 1e-3, (1e-3, 1e-3, 0.1), most=2)
    assert (state.status, state.evaluations) == (TOO_MANY, 2)
    assert float(state.step) == pytest.approx(5e-3)


def test_searches_run_under_vmap_as_alone():
    search = strong_wolfe(1e-3, 0.1)

    def run(center):
        phi = jax.value_and_grad(lambda t: jnp.cosh(t - center))
        first = search.start(*phi(0.0 * center), 0.1)
        return jax.lax.while_loop(
            lambda state: state.status == SEARCHING,
            lambda state: search.advance(state, *phi(state.step)),
            first,
        )

    centers = jnp.array([0.05, 1.0, 5.0])
    together = jax.jit(jax.vmap(run))(centers)
    alone = [jax.jit(run)(c) for c in centers]
    np.testing.assert_array_equal(together.step, [s.step for s in alone])
    np.testing.assert_array_equal(together.evaluations, [s.evaluations for s in alone])


def ran(search: LineSearch, line: Line, first: float) -> Any:
    state = search.start(*line(0.0), first)
    while state.status == SEARCHING:
        state = search.advance(state, line(float(state.step))[0], math.nan)
    return state


def test_backtracking_stops_at_the_first_sufficient_decrease():
    def line(t):
        return (t - 1) ** 2, 2 * (t - 1)

    state = ran(backtracking(0.1, 0.5), line, 16.0)
    assert (state.step, state.status, state.evaluations) == (1, CONVERGED, 5)
    state = ran(backtracking(0.1, 0.5, atol=9.0), line, 16.0)
    assert (state.step, state.evaluations) == (4, 3)
    state = ran(backtracking(0.1, 0.5, max_backtracking_steps=2), line, 16.0)
    assert (state.step, state.status, state.evaluations) == (4, TOO_MANY, 3)
    state = ran(backtracking(max_backtracking_steps=3), lambda t: (math.nan, -1.0), 1.0)
    assert (state.step, state.status, state.evaluations) == (0, FAILED, 4)
