"""The arena: what is known to win wins, and the page says what was found last."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


pytest.importorskip("sklearn")

from jopt.inspect.racing import training
from jopt.inspect.racing.entrants import entrants
from jopt.inspect.racing.protocol import Grid
from tests.benchmarks.arena import contest, page, picture, results
from tests.benchmarks.arena.__main__ import chosen
from tests.benchmarks.arena.problem import LeastSquares, exact
from tests.benchmarks.arena.problems import PROBLEMS
from tests.benchmarks.arena.solving import SOLVERS, solved


# Rankings. The rates are the best ones of results.json and neighbours.


def best(problem: str, name: str, steps: int, rates: list[float]) -> float:
    """The lowest loss of some rates, from one seed."""
    task = dataclasses.replace(PROBLEMS[problem].task(), steps=steps)
    (entrant,) = entrants({name: contest.field_of(PROBLEMS[problem])[name]})
    program = training.Program(task, entrant, contest.schedule(name, steps))
    seeds = training.seeds_of(task, jax.random.key(0), 1)
    runs = program.run(np.array(rates), seeds, training.tester(task), lambda: None)
    return float(np.nanmin(runs.test))


def test_matrix_methods_are_far_below_adamw_on_a_kronecker_quadratic() -> None:
    adamw = best("w1", "adamw", 1000, [3.0, 10.0])
    assert best("w1", "muon", 1000, [0.1]) < adamw / 100  # in fact, / 6,000
    assert best("w1", "soap", 1000, [0.03]) < adamw / 1e5  # in fact, / 1,500,000


def test_matrix_methods_are_below_adamw_on_a_deep_autoencoder() -> None:
    adamw = best("w3", "adamw", 300, [0.01, 0.03])
    assert best("w3", "muon", 300, [0.03]) < 0.6 * adamw  # in fact, 0.46
    assert best("w3", "soap in all layers", 300, [0.01]) < 0.6 * adamw  # 0.49


# What is kept, and what the page says of it.


def test_every_chosen_rate_is_inside_its_grid() -> None:
    at_edge = [
        (problem, name)
        for problem, of in results.kept().items()
        for name, found in of.items()
        if found["at edge"]
    ]
    assert not at_edge


@pytest.mark.parametrize("name", page.PARTS)
def test_a_page_has_the_part_that_the_results_give(name: str) -> None:
    target, part = page.PARTS[name]
    generated = f"<!-- {name}: python -m {page.MODULE} -->\n{part()}<!-- end -->\n"
    hint = "run python -m tests.benchmarks.arena --problems none --docs"
    assert generated in target.read_text(), hint


def test_a_new_result_takes_the_place_of_the_old_one_only(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PATH", tmp_path / "results.json")
    results.keep("w10", "adamw", {"rate": 1.0})
    results.keep("w2", "adamw", {"rate": 2.0})
    results.keep("w2", "sgd", {"rate": None})
    results.keep("w10", "adamw", {"rate": 3.0})
    found = {"w2": {"adamw": {"rate": 2.0}, "sgd": {"rate": None}}}
    assert results.kept() == found | {"w10": {"adamw": {"rate": 3.0}}}
    assert list(results.kept()) == ["w2", "w10"]


def test_a_family_of_problems_has_one_name() -> None:
    names = ["w1", "w5_beale", "w5_saddle", "w15_16"]
    assert chosen("w5", names) == ["w5_beale", "w5_saddle"]
    assert chosen("w1,w5_saddle", names) == ["w1", "w5_saddle"]
    assert chosen("", names) == names
    assert chosen("none", names) == []
    with pytest.raises(SystemExit, match="there is no 'w3'; there are w1, w5_beale"):
        chosen("w3", names)


def test_the_rate_that_reaches_the_goal_first_is_chosen() -> None:
    grid = Grid(5, 2.0, -1.0)
    slow, fast, lost = [9.0, 3, 1], [9.0, 1, 1], [1.0, 1, 9]

    def row(*curves):
        return contest.quickest(grid, 2.0, np.array(curves, float)[:, None])

    assert row(slow, fast, lost) == 1
    assert row(slow, fast, fast, fast, lost) == 2
    assert row([9, 9, 7], [9, 9, 5], [9, 9, 6]) == 1  # none reaches it
    assert row(slow, [1, np.nan, np.nan]) == 0
    assert contest.record_of(2.0, [None, 3.0, 2.0]) == 2
    assert contest.record_of(2.0, [1.0, None, None]) is None


def row_of(scores: list[float | None], curve: list[float]) -> dict[str, Any]:
    found = {"scores": scores, "curve": curve, "steps": [5, 10], "seconds per step": 2}
    return found | {"rate": 0.1, "usual rate": 0.01, "usual scores": [None, 1.0]}


def test_a_table_has_the_ratio_to_adamw_and_who_is_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {
        "sgd": row_of([8.0, 8.0], [9.0, 8.0]),
        "adamw": row_of([4.0, 4.2], [8.0, 4.1]),
        "muon": row_of([1.9, 2.1], [4.0, 2.0]),
        "lion": row_of([2.0, 2.2], [5.0, 2.1]),
        "adopt": row_of([None, 2.0], [2.0, 2.0]),
    }
    monkeypatch.setattr(page, "kept", lambda: {"w1": found})
    assert page.leaders("w1", page.results_of("w1")) == ["muon", "lion"]
    signs = {x: page.against_adamw("w1", x, found) for x in found}
    assert signs == {"sgd": -1, "adamw": 0, "muon": 1, "lion": 1, "adopt": -1}
    rows = [
        [x.strip() for x in line.split("|")[1:-1]]
        for line in page.problem_table("w1").splitlines()[2:]
    ]
    names = ["**muon**", "**lion**", "adamw", "sgd", "adopt"]
    assert [row[0] for row in rows] == names
    assert rows[0][1:5] == ["2 ± 0.1", "0.49", "5", "10 s"]
    assert rows[3][2:5] == ["2", "", ""]
    assert rows[4][1] == "diverged"
    assert rows[0][6] == "diverged at 0.01"


def test_scores_that_spread_differ_if_all_of_one_are_below() -> None:
    spread: list[float | None] = [5e-4, 7e-3, 2e-3]
    assert page.differ([1e-5, 2e-5, 1e-5], spread)
    assert page.differ(spread, [1e-5, 2e-5, 1e-5])
    assert not page.differ([1e-5, 2e-5, 6e-4], spread)
    assert page.differ([1.0, 1.1, 1.0], [2.0, 2.1, None])
    assert not page.differ([None, 1.0], [1.0, None])


def test_a_table_of_a_problem_with_a_goal_has_the_ratio_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {
        "sgd": row_of([0.0, 0.0], [9.0, 8.0]),
        "adamw": row_of([0.0, 0.0], [8.0, 1e-4]),
        "muon": row_of([0.0, 0.0], [1e-4, 1e-4]),
    }
    monkeypatch.setattr(page, "kept", lambda: {"w13": found})
    head, _, *rows = [
        [x.strip() for x in line.split("|")[1:-1]]
        for line in page.problem_table("w13").splitlines()
    ]
    assert head[:4] == ["optimizer", "loss ± s.e.", "steps to 0.001", "/ AdamW's"]
    assert [[row[0], *row[2:5]] for row in rows] == [
        ["**muon**", "5", "0.5", "10 s"],
        ["adamw", "10", "1", "20 s"],
        ["sgd", "", "", ""],
    ]
    signs = {x: page.against_adamw("w13", x, found) for x in found}
    assert signs == {"sgd": -1, "adamw": 0, "muon": 1}


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_is_recorded_by_evaluations_and_has_no_rate(name: str) -> None:
    def residuals(p):
        return jnp.array([10.0, 1.0]) * (p - 1)

    task = exact(
        lambda key: 3 + jax.random.normal(key, (2,)),
        lambda p: jnp.sum(residuals(p) ** 2),
        30,
        LeastSquares,
        residuals=residuals,
    )
    found = solved(task, name, 2)
    at_start = [float(jnp.sum(residuals(p) ** 2)) for p in _starts(task, 2)]
    # The first evaluation is that of the start, and the second has learned from it.
    assert found["steps"][:3] == [1, 2, 3] and found["steps"][-1] == 30
    np.testing.assert_allclose(found["curve"][0], np.mean(at_start), rtol=1e-3)
    assert found["curve"][1] < found["curve"][0] / 2
    assert all(score < 1e-9 for score in found["scores"])
    assert found["rate"] is None and not found["at edge"]
    assert page.line("w6_peaks", name, found).endswith("s)")
    assert (page.rate(found), page.at_usual_rate(found)) == ("", "")


def _starts(task: Any, seeds: int) -> Any:
    return training.seeds_of(task, jax.random.key(0), seeds).params


def test_the_pictures_are_drawn(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib").use("agg")
    ratios = {False: {"w1": {"sgd": 3.0, "muon": None}}, True: {}}
    picture.overview(ratios, tmp_path / "field.png")
    results = {x: row_of([1.0], [2.0, 1.0]) for x in ("sgd", "adamw", "muon")}
    picture.curves({"one": results}, tmp_path / "curves.png")
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())
