"""The race on the digits in docs/race.md: its table and its picture.

`python -m tests.tools.races` runs ``jopt race digits --out FOLDER`` as a user would,
and adds to the page what that took.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import textwrap
import time
from pathlib import Path

from jopt.cli.app import app
from tests.tools.pages import ROOT, write


PAGE = ROOT / "docs" / "race.md"
PICTURE = ROOT / "docs" / "images" / "race_digits.png"


def part(page: str, worked: float, took: float) -> str:
    """What the page of the site shows of the page that the command wrote.

    Args:
      page: That page.
      worked: How long all cores together worked for it, in seconds.
      took: How long it took.
    """
    alone = worked / 2
    note = (
        f"All cores together worked for {worked:.0f} s, with compilation: "
        f"{alone:.0f} s on two cores that do nothing else."
        + " These were busy with other programs, too."
        * (took > 1.5 * alone)
    )
    note = textwrap.fill(note, 88, initial_indent="- ", subsequent_indent="  ")
    _, _, table = page.partition("```\n\n")  # after the command
    table, link = re.split(r"\n\n(?=!\[)", table)
    link = link.replace("(digits.png)", f"(images/{PICTURE.name})")
    return f"{table}\n{note}\n\n{link}"


def main() -> None:
    """Run the race, and write what the page shows of it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        app(["race", "digits", "--out", folder], standalone_mode=False)
        took, used = time.perf_counter() - start, os.times()
        page = (Path(folder) / "digits.md").read_text()
        text = part(page, used.user + used.system, took)
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / "digits.png", PICTURE)
    write(PAGE, "digits", "tests.tools.races", text)


if __name__ == "__main__":
    main()
