"""Record what the authors' code of the eigenbasis methods computes, in float64.

`python -m tests.tools.eigen_methods CHECKOUTS` runs SOAP, KL-SOAP, KL-Shampoo, SPlus
and Shampoo, whose repositories are folders of CHECKOUTS, and writes the parameters
after some steps to tests/algorithms/golden/eigen_methods.npz. It needs torch.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.algorithms.eigen_problem import GOLDEN, RUNS, SHOWN, gradients, parameters


def module(path: Path) -> Any:
    """A module of a checkout."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def makers(checkouts: Path) -> dict[str, Callable[..., Any]]:
    """The optimizers by name, from parameters of torch and the arguments of a run."""
    soap = module(checkouts / "nikhilvyas+SOAP/soap.py").SOAP
    kl = module(checkouts / "yorkerlin+KL-Methods/optim/kl_opt.py").KLOpt
    splus = module(checkouts / "kvfrans+splus/torch/splus.py").SPlus
    sys.path.insert(0, str(checkouts / "facebookresearch+optimizers"))
    import distributed_shampoo as meta  # type: ignore[import-not-found]
    import torch  # type: ignore[import-not-found]

    double = torch.float64

    def shampoo(
        params: Any,
        graft: str | None = None,
        p: int = 4,
        rank_rtol: float | None = None,
        newton: bool = False,
        dtype: str = "float64",
        **options: Any,
    ):
        grafts = {
            None: lambda: None,
            "sgd": meta.SGDPreconditionerConfig,
            "adagrad": meta.AdaGradPreconditionerConfig,
            "rmsprop": lambda: meta.RMSpropPreconditionerConfig(beta2=0.95),
            "adam": lambda: meta.AdamPreconditionerConfig(beta2=0.95),
        }
        stability = meta.PerturbationConfig(perturb_before_computation=False)
        if rank_rtol is not None:
            stability = meta.PseudoInverseConfig(rank_rtol=rank_rtol)
        root = meta.EigenConfig(rank_deficient_stability_config=stability)
        config = meta.RootInvShampooPreconditionerConfig(
            factor_matrix_dtype=getattr(torch, dtype),
            inv_factor_matrix_dtype=getattr(torch, dtype),
            inverse_exponent_override={2: 1 / p},
            amortized_computation_config=meta.CoupledNewtonConfig() if newton else root,
        )
        return meta.DistributedShampoo(
            params,
            preconditioner_config=config,
            grafting_config=grafts[graft](),
            distributed_config=meta.SingleDeviceDistributedConfig(
                target_parameter_dimensionality=float("inf")  # do not merge axes
            ),
            **options,
        )

    return {
        "soap": soap,
        "kl": lambda params, **options: kl(params, cast_dtype=double, **options),
        "splus": splus,
        "shampoo": shampoo,
    }


def trajectory(make: Callable[..., Any], run: Any) -> Iterator[np.ndarray]:
    """The parameters after each step."""
    import torch  # type: ignore[import-not-found]

    params = {n: torch.tensor(parameters()[n]) for n in run.leaves}
    optimizer = make(list(params.values()), **run.oracle)
    for grads in gradients():
        for name, p in params.items():
            p.grad = torch.tensor(grads[name])
        optimizer.step()
        yield np.concatenate([p.detach().numpy().ravel() for p in params.values()])


def main(checkouts: str) -> None:
    """Run all, and write the golden file."""
    import torch  # type: ignore[import-not-found]

    torch.set_default_dtype(torch.float64)
    # The authors decompose in float32 whatever the dtype, which leaves few digits to
    # compare; and torch.compile would take longer than these runs.
    torch.Tensor.float = torch.Tensor.double
    torch.compile = lambda function: function
    made = makers(Path(checkouts))
    found = {
        name: np.array(list(trajectory(made[run.library], run)))[SHOWN]
        for name, run in RUNS.items()
    }
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    main(sys.argv[1])
