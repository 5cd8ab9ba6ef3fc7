"""Rows that catch up on missed steps."""

from __future__ import annotations

import jopt
from tests.algorithms.test_adagrad import adagrad
from tests.laws.case import core_of, transform


CASES = [
    transform(
        "catch_up",
        lambda p, grads, **_: core_of(adagrad)(p, grads),
        inner=jopt.scale_by_rss(),
        tables=True,
    ),
]
