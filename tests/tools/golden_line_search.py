"""Write the steps that scipy's MINPACK search tries on Moré and Thuente's functions.

    python -m tests.tools.golden_line_search

Written by scipy 1.17.1, whose search is a private class.
"""

from __future__ import annotations

import json
from pathlib import Path

from scipy.optimize._dcsrch import DCSRCH

from tests.gradients.lines import FIRST_STEPS, LINES, TOLERANCES


FILE = Path(__file__).parents[1] / "gradients" / "golden" / "dcsrch.json"


def tried(name: str, first: float) -> list[float]:
    """The steps that are tried."""
    line, (ftol, gtol), steps = LINES[name], TOLERANCES[name], []

    def value(t):
        steps.append(t)
        return line(t)[0]

    search = DCSRCH(value, lambda t: line(t)[1], ftol, gtol, 1e-10, 0.0, 1e10)
    search(first, *line(0.0), maxiter=30)
    return [float(t) for t in steps]


if __name__ == "__main__":
    rows = {name: {str(t): tried(name, t) for t in FIRST_STEPS} for name in LINES}
    FILE.write_text(json.dumps(rows, indent=1) + "\n")
