"""The race on the digits in docs/race.md: its table and its picture.

`python -m tests.tools.races` runs the race as a user would, and says in the page what
it took.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import jopt
from jopt.inspect import RaceResult
from tests.tools.table import write


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "race.md"
PICTURE = ROOT / "docs" / "images" / "race_digits.png"


def part(result: RaceResult, seconds: float) -> str:
    """What the page shows of a race.

    Args:
      result: The race.
      seconds: What all cores together worked for it, in seconds.
    """
    alone = seconds / 2
    shared = sum(entry.seconds for entry in result.entries) > 1.5 * alone
    note = (
        f"All cores together worked for {seconds:.0f} s, with compilation: "
        f"{alone:.0f} s on two cores that do nothing else."
        + " These were busy with other programs, too."
        * shared
    )
    note = textwrap.fill(note, 88, initial_indent="- ", subsequent_indent="  ")
    picture = f"![Learning curves, and accuracy over rates](images/{PICTURE.name})"
    return f"{result.markdown()}\n{note}\n\n{picture}\n"


def main() -> None:
    """Run the race, and write what the page shows of it."""
    result = jopt.inspect.race("digits")
    used = os.times()
    write(PAGE, "digits", "tests.tools.races", part(result, used.user + used.system))
    PICTURE.parent.mkdir(exist_ok=True)
    result.plot(PICTURE)
    print(result)


if __name__ == "__main__":
    main()
