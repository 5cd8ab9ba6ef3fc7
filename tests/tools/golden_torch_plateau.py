"""Write what torch's ReduceLROnPlateau does with optimizers and other schedulers.

    python -m tests.tools.golden_torch_plateau

Written by torch 2.13 in float64.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from tests.interop.torch.plateau_settings import KEPT, METRICS, RUNS, TARGETS, Run


FILE = Path(__file__).parents[1] / "interop" / "torch" / "golden" / "plateau.json"


def steps(run: Run) -> dict[str, Any]:
    """The rates of all steps, and the parameters after some of them."""
    import torch

    params = [torch.ones(n, dtype=torch.float64, requires_grad=True) for n in (3, 2)]
    groups: Any = params
    if run.rates:
        pairs = zip(params, run.rates, strict=True)
        groups = [{"params": [p], "lr": rate} for p, rate in pairs]
    optimizer = getattr(torch.optim, run.optimizer)(groups, **run.arguments)
    known = vars(torch.optim.lr_scheduler) | {"o": optimizer}
    schedulers = [eval(run.scheduler, known)] if run.scheduler else []
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **run.plateau)
    found: dict[str, Any] = {"rates": [], "params": []}
    for target, metric in zip(map(torch.tensor, TARGETS), METRICS, strict=True):

        def closure(target=target):
            optimizer.zero_grad()
            x = torch.cat(params)
            loss = torch.sum((x - target) ** 2 + torch.log1p(x**2))
            loss.backward()
            return loss

        found["rates"].append([group["lr"] for group in optimizer.param_groups])
        if run.optimizer == "LBFGS":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        plateau.step(metric)
        found["params"].append(torch.cat(params).tolist())
    found["params"] = [found["params"][step] for step in KEPT]
    return found


def all_steps() -> dict[str, Any]:
    """Those of all runs, by name."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of scalars such as ASGD's eta
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, for deprecated tensors
            return {name: steps(run) for name, run in RUNS.items()}
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    text = json.dumps(all_steps(), separators=(",", ":"))
    FILE.write_text(text.replace('},"', '},\n"') + "\n")
