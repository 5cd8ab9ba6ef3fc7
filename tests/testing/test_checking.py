"""`check` and `report`: which laws are tested, and what is said of them."""

from __future__ import annotations

import pytest

import jopt
from jopt import testing


def test_a_report_has_one_line_for_each_law_and_says_why_one_is_skipped() -> None:
    found = testing.report(jopt.sgd(0.1), only=["equal_recipes*", "twenty*32"])
    assert [r.outcome for r in found] == ["ok", "skipped"]
    assert found.ok
    assert str(found).startswith("sgd(learning_rate=0.1): 1 law holds, 1 skipped\n")
    assert "no second implementation was given: expected=twin" in str(found)


def test_a_law_that_does_not_exist_is_an_error_that_suggests_one() -> None:
    with pytest.raises(ValueError, match=r"no law 'types_change'.*types_never_change"):
        testing.check(jopt.sgd(0.1), only=["types_change"])
