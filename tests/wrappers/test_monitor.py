"""Metrics of a transformation."""

from __future__ import annotations

import jopt
from tests.algorithms.test_adam import adam
from tests.laws.case import core_of, transform


CASES = [
    transform(
        "monitor",
        lambda p, grads, **_: core_of(adam)(p, grads),
        inner=jopt.scale_by_adam(),
        keep=True,
    ),
]
