"""Muon^2: Adam's direction, orthogonalized."""

from __future__ import annotations

import jopt
from tests.algorithms.matrix_problem import close_to_golden


WITHOUT_ROW = {
    "muon_squared": "scale_by_muon_squared before the iteration of muon",
    "scale_by_muon_squared": "leafwise, a part of muon_squared",
}


def test_steps_are_those_of_the_record() -> None:
    tx = jopt.muon_squared(0.1, "newton_schulz", weight_decay=0.0125)
    close_to_golden("muon_squared", tx)
