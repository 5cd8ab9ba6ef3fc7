"""What the arena found: results.json, one line for each optimizer on each problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


PATH = Path(__file__).with_name("results.json")


def kept() -> dict[str, dict[str, Any]]:
    """All results: by problem, then by optimizer."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def keep(problem: str, name: str, found: dict[str, Any]) -> None:
    """Put a result in the place of the one before."""
    results = kept()
    results.setdefault(problem, {})[name] = found
    # The file is whole at any time, also when the program is interrupted here.
    new = PATH.with_suffix(".new")
    new.write_text(as_text(results))
    new.replace(PATH)


def as_text(results: dict[str, dict[str, Any]]) -> str:
    """JSON in which a result is a line, and problems are in their order."""

    def number(problem):
        head, _, rest = problem.partition("_")
        return int(head[1:]), rest

    blocks = []
    for problem in sorted(results, key=number):
        lines = [
            f"  {json.dumps(name)}: {json.dumps(found)}"
            for name, found in results[problem].items()
        ]
        blocks.append(f"{json.dumps(problem)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n " + ",\n ".join(blocks) + "\n}\n"
