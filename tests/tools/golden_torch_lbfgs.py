"""Write what torch's LBFGS does with Rosenbrock's function.

    python -m tests.tools.golden_torch_lbfgs

Written by torch 2.13 in float64.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.interop.torch.lbfgs_settings import SETTINGS, START, STEPS


FILE = Path(__file__).parents[1] / "interop" / "torch" / "golden" / "lbfgs.json"


def steps(settings: dict[str, Any]) -> dict[str, Any]:
    """The parameters, iterations and evaluations after each step."""
    import torch

    params = [
        torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in START.values()
    ]
    optimizer = torch.optim.LBFGS(params, **settings)

    def closure():
        optimizer.zero_grad()
        x = torch.cat([p.ravel() for p in params])
        loss = torch.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
        loss.backward()
        return loss

    found: dict[str, Any] = {"params": [], "n_iter": [], "func_evals": []}
    for _ in range(STEPS):
        optimizer.step(closure)
        found["params"].append([float(x) for p in params for x in p.detach().ravel()])
        for name in ("n_iter", "func_evals"):
            found[name].append(optimizer.state[params[0]][name])
    return found


def all_steps() -> dict[str, Any]:
    """Those of all settings, by name."""
    return {name: steps(settings) for name, settings in SETTINGS.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(all_steps(), indent=1) + "\n")
