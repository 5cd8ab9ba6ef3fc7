"""The catalogue finds what test files declare, and says what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jopt
from tests import catalogue
from tests.laws.case import Case


ROOT = Path(__file__).parents[2]


def test_every_case_has_a_twin() -> None:
    without = {case.name for case in catalogue.CASES if case.twin is None}
    assert not without - set(catalogue.TWINS)


def test_a_case_without_a_twin_says_what_to_write() -> None:
    case = Case("no_such_twin")
    with pytest.raises(LookupError, match=r"'no_such_twin' has no twin: def no_such"):
        next(case.expected({}, []))


def test_no_name_is_declared_twice() -> None:
    homes = ["tests.a", "tests.b"]
    pairs = [("adam", (home, None)) for home in homes]
    with pytest.raises(ValueError, match=r"two twins 'adam': in tests\.a and .*b"):
        catalogue.by_name(pairs, "twins")


def test_a_declaration_is_an_assignment_at_the_top_level() -> None:
    lines = ["CASES = [", "ROWS: tuple = (", "  WITHOUT_ROW = {", "from x import ROWS"]
    assert catalogue.DECLARATION.findall("\n".join(lines)) == ["CASES", "ROWS"]


def test_the_file_of_a_factory_is_that_of_its_module() -> None:
    assert catalogue.file_of(jopt.adamw) == "tests/algorithms/test_adam.py"
    assert catalogue.file_of(jopt.masked) == "tests/wrappers/test_masking.py"


def test_the_catalogue_can_be_imported_on_one_device_and_first() -> None:
    # As the programs do that the tests start: no conftest.py has been read.
    code = "from tests.catalogue import CASES; print(len(CASES))"
    found = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert int(found) == len(catalogue.CASES)
