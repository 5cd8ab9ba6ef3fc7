"""Row-sparse gradients made dense."""

from __future__ import annotations

from tests.laws.case import times, transform


CASES = [
    transform("densify", times(1.0)),
]
