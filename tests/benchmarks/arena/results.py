"""What the arena found: results.json, one line for each optimizer on each problem."""

from __future__ import annotations

import datetime
import json
import math
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jopt


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


def short(x: Any) -> Any:
    """Numbers of four digits; None for a run that diverged."""
    if isinstance(x, np.ndarray):
        return [short(y) for y in x.tolist()]
    return float(f"{x:.4g}") if math.isfinite(x) else None


def made_with() -> dict[str, str]:
    """What gave a result."""
    return {
        "date": datetime.date.today().isoformat(),
        "jopt": jopt.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
    }
