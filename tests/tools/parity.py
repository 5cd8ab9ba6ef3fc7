"""Record what the real libraries compute for the rows of the test files.

`python -m tests.tools.parity adam` runs the rows of test_adam.py that no golden file
has and writes them to tests/parity/golden/adam.npz; without a name it does so for every
test file. What is recorded stays as it is. A golden file holds per library the recipes
of the rows, the versions, and per float width an array (rows, steps, parameters).
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.catalogue import GROUPS, WIDTHS, Row
from tests.parity import numbers
from tests.parity.libraries import oracle, padded


def record(group: str) -> Path | None:
    """Write the rows of a test file that are not recorded, if there are some."""
    known = {name[:2] for name in numbers.golden()}
    missing = [r for r in GROUPS[group] if (r.library, r.recipe) not in known]
    if not missing:
        return None
    path = numbers.GOLDEN / f"{group}.npz"
    contents: dict[str, Any] = {}
    if path.exists():
        with np.load(path) as file:
            contents = dict(file)
    for library in dict.fromkeys(row.library for row in missing):
        add(contents, library, [row for row in missing if row.library == library])
    np.savez_compressed(path, **contents)
    numbers.golden.cache_clear()
    return path


def add(contents: dict[str, Any], library: str, rows: list[Row]) -> None:
    """Run the rows and put them behind those that a golden file has."""
    packages = dict.fromkeys([rows[0].package or library, "jax", "numpy"])
    new: dict[str, Any] = {
        "rows": [row.recipe for row in rows],
        "versions": [f"{package} {version(package)}" for package in packages],
    }
    old = {name: list(contents.get(f"{library}.{name}", ())) for name in new}
    contents[f"{library}.rows"] = np.array(old["rows"] + new["rows"])
    contents[f"{library}.versions"] = np.array(
        list(dict.fromkeys(old["versions"] + new["versions"]))
    )
    for width in WIDTHS:
        runs = [*contents.get(f"{library}.{width}", ()), *oracle(library, width, rows)]
        contents[f"{library}.{width}"] = padded(runs)


def main(groups: list[str]) -> None:
    """Record the named files, or all of them."""
    for group in groups or GROUPS:
        path = record(group)
        print(f"{group}: {path.name if path else 'all rows are recorded'}")


if __name__ == "__main__":
    main(sys.argv[1:])
