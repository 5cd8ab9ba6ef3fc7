"""The laws hold for an optimizer of one's own, the one of `15_write_your_own.py`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


EXAMPLE = Path(__file__).parents[2] / "examples" / "15_write_your_own.py"


def test_an_optimizer_of_ones_own_passes_all_laws(
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = runpy.run_path(str(EXAMPLE))
    output = capsys.readouterr().out
    assert output.startswith("power_sign(\n    learning_rate=0.05,\n")
    assert float(output.partition("->")[2].split()[0]) < 1e-6
    assert output.endswith(" laws hold\n") and "skipped" not in output
    report = example["report"]
    assert len(report.passed) == len(report) > 30
