"""Generated parts of the pages in docs/."""

from __future__ import annotations

import re
from pathlib import Path


ROOT = Path(__file__).parents[2]


def write(page: Path, name: str, module: str, text: str) -> None:
    """Replace the generated part of a page; its comments say what generates it."""
    before, rest = re.split(rf"<!-- {name}: [^\n]* -->\n", page.read_text())
    after = rest[rest.index("<!-- end -->") :]
    begin = f"<!-- {name}: python -m {module} -->\n"
    page.write_text(before + begin + text + after)
