"""The settings of LBFGS that are compared with torch."""

from __future__ import annotations

from typing import Any


START = {"a": [-1.2, 1.0], "b": [[0.5, -0.5]]}
STEPS = 5
WOLFE = {"line_search_fn": "strong_wolfe"}
SETTINGS: dict[str, dict[str, Any]] = {
    "a small rate": {"lr": 1e-3, "max_iter": 6, "history_size": 3},
    "strong Wolfe": {**WOLFE, "max_iter": 7},
    "few evaluations": {**WOLFE, "max_eval": 3, "history_size": 2, "lr": 0.5},
    "far too long": {**WOLFE, "lr": 30.0, "tolerance_grad": 1e-2, "history_size": 5},
}
