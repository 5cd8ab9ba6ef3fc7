"""The picture in docs/finding_a_rate.md: ``python -m tests.tools.range_picture``.

It runs the first program of the page and draws the result.
"""

from __future__ import annotations

import re
from typing import Any

import matplotlib

from tests.tools.pages import ROOT


PAGE = ROOT / "docs" / "finding_a_rate.md"
PICTURE = ROOT / "docs" / "images" / "range_test.png"


def main() -> None:
    """Draw it."""
    matplotlib.use("Agg")
    program = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)[0]
    names: dict[str, Any] = {}
    exec(compile(program, PAGE, "exec"), names)
    figure = names["found"].plot(width=5).figure
    figure.savefig(PICTURE, dpi=200, bbox_inches="tight")


if __name__ == "__main__":
    main()
