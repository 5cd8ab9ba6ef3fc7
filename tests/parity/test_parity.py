"""jopt gives the numbers of the real libraries, step by step.

Golden numbers stand in for the libraries; the installed ones are run again.
"""

import importlib.util

import pytest

from tests.catalogue import ROWS, WIDTHS, key, rows_of

from .libraries import oracle
from .numbers import assert_same, both, deviation, measured, recorded


def test_rows_have_names_of_their_own():
    names = [(row.library, row.name) for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.library}-{row.name}")
def test_every_step_equals_the_library(row, width):
    actual, expected = both(row, width)
    assert_same(actual, expected, row, width)
    # The README has what was measured, in powers of ten; other code for the same sums,
    # of another machine or compiler, rounds differently.
    assert key(row) in measured(), "run python -m tests.tools.table"
    listed = measured()[key(row)][width]
    least = {"float32": 1e-7, "float64": 1e-15}[width]
    assert deviation(actual, expected) <= 10 * max(listed, least)


# Those in float32 were recorded by the same calls.
@pytest.mark.parametrize("width", ["float64"])
@pytest.mark.parametrize("library", dict.fromkeys(row.library for row in ROWS))
def test_golden_numbers_are_what_the_installed_library_gives(library, width):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    rows = rows_of(library)
    for row, actual in zip(rows, oracle(library, width, rows), strict=True):
        assert_same(actual, recorded(row, width), row, width)
