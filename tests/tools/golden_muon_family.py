"""Golden trajectories of the Muon family: what the authors' code computes in float64.

`python -m tests.tools.golden_muon_family FOLDER` runs the checkouts in the folder,
which have the names below, and writes tests/algorithms/golden/muon_family.npz: per
optimizer an array (steps, parameters). It needs torch, and absl-py for
Emerging-Optimizers. The problem is that of `tests.algorithms.matrix_problem`; torch's
weights are (outputs, inputs).

    NVIDIA-NeMo+Emerging-Optimizers   fd77292
    LIONS-EPFL+scion                  f58a393
    microsoft+dion                    0a059a4
    Liuhong99+Sophia                  a7e1572
    modded/records                    f411b3d
"""

from __future__ import annotations

import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.algorithms.matrix_problem import MATRICES, STEPS, gradient


os.environ["TORCHDYNAMO_DISABLE"] = "1"
GOLDEN = Path(__file__).parents[1] / "algorithms" / "golden" / "muon_family.npz"
TRACK_3 = "modded/records/track_3_optimization/results"


def in_double() -> Any:
    """Import torch such that code that asks for float32 or bfloat16 gets float64."""
    import torch

    torch.set_default_dtype(torch.float64)
    loaded = torch.optim, torch.nn.functional  # before the names change
    del loaded
    torch.float32 = torch.bfloat16 = torch.float64
    torch.Tensor.float = torch.Tensor.bfloat16 = torch.Tensor.clone
    if not hasattr(typing, "override"):  # before Python 3.12
        typing.override = lambda method: method
    return torch


def trajectory(torch: Any, make: Callable[..., Any], names: Any = MATRICES) -> Any:
    """The parameters after each step, flat; ``make(parameters)`` is an optimizer."""
    weights = {n: torch.nn.Parameter(torch.tensor(MATRICES[n].T.copy())) for n in names}
    optimizer = make(list(weights.values()))
    rows = []
    for t in range(STEPS):
        if hasattr(optimizer, "nesterov_step"):
            optimizer.nesterov_step()
        for w in weights.values():
            w.grad = torch.tensor(gradient(w.detach().numpy().T, t).T.copy())
        optimizer.step()
        rows.append(
            np.concatenate([w.detach().numpy().T.ravel() for w in weights.values()])
        )
    return np.array(rows)


def of_record(torch: Any, file: Path) -> dict[str, Any]:
    """The optimizers of a record of modded-nanogpt, which has its script in its log."""
    text = file.read_text()
    start = text.index("\n\n", text.index("#              Optimizer"))
    stop = text.index("#                Setup", start)
    one = types.SimpleNamespace(
        get_world_size=lambda: 1, get_rank=lambda: 0, all_gather=lambda *_: None
    )
    scope: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor, "dist": one}
    exec(text[start : text.rindex("#####", start, stop)], scope)
    return scope


def loaded(file: Path) -> Any:
    """A module by its file."""
    module = types.ModuleType(file.stem)
    exec(compile(file.read_text(), str(file), "exec"), vars(module))
    return module


class Steps:
    """An optimizer of a record without what is around its update."""

    def __init__(self, torch: Any, parameters: list[Any], update: Any):
        self.parameters, self.update = parameters, update
        self.momenta = [torch.zeros_like(p) for p in parameters]

    def step(self) -> None:
        """Take a step of rate 0.02."""
        for p, momentum in zip(self.parameters, self.momenta, strict=True):
            p.data.add_(self.update(p.grad, momentum), alpha=-0.02)


def with_hessian(optimizer: Any) -> Any:
    """Sophia-G whose estimate, before every tenth step, is a squared gradient."""
    step, count = optimizer.step, iter(range(STEPS))

    def both() -> None:
        if next(count) % 10 == 0:
            optimizer.update_hessian()
        step(bs=20)

    optimizer.step = both
    return optimizer


def first_log(folder: Path) -> Path:
    """The script of a record."""
    return min(folder.glob("*.txt"))


def main(folder: str) -> None:
    """Run everything and write the file."""
    torch, root = in_double(), Path(folder)
    eo = root / "NVIDIA-NeMo+Emerging-Optimizers"
    sys.path[:0] = [
        str(eo),
        *map(str, (root / "LIONS-EPFL+scion", root / "microsoft+dion")),
    ]
    runs: dict[str, Any] = {}

    # Its own needs Python 3.12.
    registry: Any = types.ModuleType("emerging_optimizers.registry")
    registry.register_optimizer = lambda name: lambda optimizer: optimizer
    sys.modules[registry.__name__] = registry
    from emerging_optimizers import weight_update_hooks as hooks
    from emerging_optimizers.orthogonalized_optimizers import muon, muon_hyperball

    exact: Any = {"fp32_matmul_prec": "highest", "weight_decay": 0.0}
    runs["muon_hyperball"] = lambda ps: muon_hyperball.MuonHyperball(
        ps, lr=0.02, hyperball_radius=2.0, **exact
    )
    runs["muon_relative"] = lambda ps: muon.Muon(
        ps, lr=0.02, weight_update_hook=hooks.RelativeUpdateHook(), **exact
    )
    runs["muon_brake"] = lambda ps: muon.Muon(
        ps,
        lr=0.05,
        weight_update_hook=hooks.RadialBrakeHook(0.5, 0.75),
        **exact,
    )
    results = root / TRACK_3
    adam_h = of_record(torch, first_log(results / "20260430_adamh"))["AdamH"]
    runs["adam_h"] = lambda ps: adam_h(ps)
    muon_h = of_record(torch, results / "20260430_muonh/train_gpt_simple_muonh.py")
    runs["muon_h"] = lambda ps: muon_h["MuonH"](ps, lr=0.018)
    floored = of_record(torch, first_log(results / "20260501_skylight001"))["Muon"]
    runs["norm_floor"] = lambda ps: floored(ps, lr=0.0375)
    runs["muon_squared"] = lambda ps: of_record(
        torch, results / "20260501_muonsq/train_gpt_simple_muonsq.py"
    )["MuonSq"](ps, lr=0.1, weight_decay=0.0125)
    aurora = of_record(torch, first_log(results / "20260505_aurora"))
    aurora["CONTRA_MUON"] = 0.0
    runs["aurora"] = lambda ps: Steps(torch, ps, aurora["muon_update"])

    from emerging_optimizers.orthogonalized_optimizers import adaptive_muon

    runs["adamuon_plain"] = lambda ps: adaptive_muon.AdaptiveMuon(
        ps, lr=0.02, momentum=0.9, **exact
    )
    from scion import Scion

    runs["scion"] = lambda ps: Scion(
        [
            {"params": ps[0], "norm": "Spectral", "scale": 5.0},
            {"params": ps[1], "norm": "Sign", "scale": 30.0},
            {"params": ps[2], "norm": "ColNorm", "scale": 5.0},
        ],
        lr=0.02,
        momentum=0.1,
    )
    runs["scion_unconstrained"] = lambda ps: Scion(
        ps, lr=0.02, momentum=0.1, norm="RowNorm", unconstrained=True
    )
    from dion.dion2 import Dion2
    from dion.normuon import NorMuon

    runs["normuon"] = lambda ps: NorMuon(ps, lr=0.02)
    runs["dion2"] = lambda ps: Dion2(ps, lr=0.02, fraction=0.5)
    sophia = loaded(root / "Liuhong99+Sophia" / "sophia.py")
    runs["sophia_g"] = lambda ps: with_hessian(sophia.SophiaG(ps, lr=0.02))
    nesterov = of_record(torch, first_log(results / "20260522_ema_nesterov_muon"))
    runs["ema_nesterov"] = lambda ps: nesterov["EMA_Nesterov"](
        ps,
        torch.optim.SGD(ps, lr=0.1, momentum=0.5),
        lookahead_stepsize=0.6,
        lookahead_ema=0.9,
        use_scheduled_lookahead_stepsize=False,
        prefill_steps=2,
        rest_steps=10,
    )
    np.savez_compressed(GOLDEN, **{n: trajectory(torch, f) for n, f in runs.items()})


if __name__ == "__main__":
    main(sys.argv[1])
