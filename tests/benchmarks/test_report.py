"""The page of the benchmarks says what was measured last."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import report
from tests.benchmarks.recipes import RECIPES, TREES


@pytest.mark.parametrize("name", report.PARTS)
def test_the_page_has_the_part_that_the_numbers_give(name: str) -> None:
    begin = f"<!-- {name}: python -m tests.benchmarks.{name} --docs -->\n"
    generated = f"{begin}{report.part(name)}<!-- end -->\n"
    assert generated in report.PAGE.read_text(), "run python -m tests.benchmarks.report"


def row(peer: str, step: float, **more: float) -> dict[str, Any]:
    recipe = {"tree": "leaves_100", "recipe": "adamw"}
    numbers = {"step": step, "trace": 0.5, "bandwidth": 28 * 102_400 / 0.5e-3}
    return {**recipe, "peer": peer, **numbers, **more}


def test_a_table_has_ratios_and_blanks_for_what_was_not_measured(tmp_path: Any) -> None:
    found = {
        "date": "2026-01-01",
        "cpu": "x",
        "cores": 2,
        "device": "cpu",
        "rounds": 9,
        "versions": {"jax": "0.10"},
        "bandwidth": {"slow": 1e9, "fast": 2e9},
        "rows": [
            row("jopt", 2e-3),
            row("jopt.step", 1e-3),
            row("optax", 4e-3),
            row("torch fused", 3e-3),
        ],
    }
    assert TREES["leaves_100"].count() == 102_400 and RECIPES["adamw"].floor == 28
    lines = report.steps(found).splitlines()
    (cells,) = [x.split("|")[2:-1] for x in lines if x.startswith("| `adamw` ")]
    # The fastest of jopt takes twice as long as its bytes.
    assert [x.strip() for x in cells] == ["2", "1", "4", "3", "0.50", "0.25", "50 %"]
    (cells,) = [x.split("|")[2:-1] for x in lines if "trace" in x]
    assert [x.strip() for x in cells] == ["500"] * 4 + ["1.00"]
    report.picture(found, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 1000


def test_what_is_measured_again_takes_the_place_of_what_was_kept() -> None:
    old = report.kept("steps")
    first, *rest = old["rows"]
    versions = old["versions"] | {"another peer": "1"}
    new = old | {"rows": [first | {"step": 1.0}], "versions": versions}
    merged = report.with_kept(new)
    assert merged["rows"] == [first | {"step": 1.0}, *rest]
    assert merged["versions"] == versions
    for other in ({"cpu": "another one"}, {"versions": versions | {"jax": "0"}}):
        assert report.with_kept(new | other) == new | other
