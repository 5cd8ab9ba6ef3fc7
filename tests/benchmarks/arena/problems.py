"""All problems of the arena, by name."""

from __future__ import annotations

from tests.benchmarks.arena import fits, functions, networks, text, tumours
from tests.benchmarks.arena.problem import Problem


PROBLEMS: dict[str, Problem] = {
    name: problem
    for family in (functions, networks, text, fits, tumours)
    for name, problem in family.PROBLEMS.items()
}
