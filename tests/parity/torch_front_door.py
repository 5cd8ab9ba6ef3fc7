"""What the real torch says of its calls, and what they compute together.

`python -m tests.parity.torch_front_door` keeps in torch_front_door.json the names and
defaults of its optimizers and schedulers, and in torch_front_door.npz the parameters
after every step of each row: parameter groups, clipping, schedulers that turn momentum
around, a plateau; in float64. Of what has groups it keeps the state dict after ten.
"""

import inspect
import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .problem import GRADS, PARAMS, STEPS, VALUES, flat
from .process import result_of


HALF = STEPS // 2
GOLDEN = Path(__file__).with_name("torch_front_door.npz")
CALLS = GOLDEN.with_suffix(".json")
OPTIMIZERS = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)
SCHEDULERS = (
    *("LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR"),
    *("LinearLR", "ExponentialLR", "SequentialLR", "CosineAnnealingLR"),
    *("ChainedScheduler", "ReduceLROnPlateau", "CyclicLR", "OneCycleLR"),
    *("CosineAnnealingWarmRestarts", "PolynomialLR", "SWALR"),
)
# The metric that a plateau is told: better, then for long not, then better again.
METRICS = np.concatenate([VALUES[:5], np.full(9, VALUES[4]), VALUES[5:11]])


@dataclass(frozen=True)
class Row:
    """One setting: torch's optimizer, and what is done at every step."""

    optimizer: str  # with GROUPS in the place of the parameters
    groups: str = "[{'params': ''}]"
    clip: str = ""  # before the step
    scheduler: str = ""  # after it, without the optimizer
    jopt: str = ""  # the optimizer, where a scheduler is part of it

    @property
    def is_saved(self):
        """Whether its state dict is kept: jopt has one kind of state in all groups."""
        return self.groups != "[{'params': ''}]" and "amsgrad" not in self.groups

    @property
    def recipe(self):
        """What the numbers depend on."""
        return " | ".join((self.optimizer, self.groups, self.clip, self.scheduler))


APART = "[{'params': 'bias', 'lr': 0.02, 'weight_decay': 0.0}, {'params': 'kernel'}]"
# The norms of the gradients go from 1e-6 to 3; these bounds are met at some steps.
ROWS = (
    Row("SGD(GROUPS, lr=0.05, momentum=0.9, weight_decay=0.1)", APART),
    Row(
        "SGD(GROUPS, 0.05, 0.9)",
        "[{'params': 'k', 'nesterov': True, 'maximize': True}, {'params': 'bias', "
        "'momentum': 0.5, 'dampening': 0.1}]",
    ),
    Row("AdamW(GROUPS, lr=0.05, betas=(0.8, 0.95), weight_decay=0.2)", APART),
    Row(
        "Adam(GROUPS, lr=0.05, amsgrad=True)",
        "[{'params': 'bias', 'betas': (0.5, 0.6), 'eps': 1e-4, 'amsgrad': False}, "
        "{'params': 'kernel', 'decoupled_weight_decay': True, 'weight_decay': 0.1}]",
    ),
    Row("Adafactor(GROUPS, lr=0.05, weight_decay=0.1)", APART),
    Row("RMSprop(GROUPS, lr=0.05, centered=True, momentum=0.5)", APART),
    Row(
        "Adagrad(GROUPS, lr=0.05)",
        "[{'params': 'bias', 'lr_decay': 0.5}, {'params': 'kernel'}]",
    ),
    Row(
        "NAdam(GROUPS, lr=0.05)",
        "[{'params': 'bias', 'betas': (0.5, 0.9)}, {'params': 'kernel'}]",
    ),
    Row(
        "ASGD(GROUPS, lr=0.05, t0=4)",
        "[{'params': 'bias', 'lr': 0.02, 'lambd': 0.1}, {'params': 'kernel'}]",
    ),
    Row("SGD(GROUPS, lr=0.05)", clip="clip_grad_norm_({}1.0)"),
    Row("SGD(GROUPS, lr=0.05)", clip="clip_grad_norm_({}1e-5)"),
    Row("Adam(GROUPS, lr=0.05)", clip="clip_grad_norm_({}0.5, 1.0)"),
    Row("Adam(GROUPS, lr=0.05)", clip="clip_grad_norm_({}0.1, math.inf)"),
    Row("SGD(GROUPS, lr=0.05)", clip="clip_grad_value_({}0.3)"),
    Row(
        "SGD(GROUPS, lr=0.05, momentum=0.9, nesterov=True)",
        scheduler="OneCycleLR(max_lr=0.1, total_steps=21)",
        jopt="SGD(GROUPS, lr=lr_scheduler.OneCycleLR(0.1, total_steps=21), "
        "momentum=lr_scheduler.OneCycleMomentum(total_steps=21), nesterov=True)",
    ),
    Row(
        "Adam(GROUPS, lr=0.05)",
        scheduler="OneCycleLR(max_lr=0.1, epochs=3, steps_per_epoch=7)",
        jopt="Adam(GROUPS, lr=lr_scheduler.OneCycleLR(0.1, None, 3, 7), betas="
        "(lr_scheduler.OneCycleMomentum(epochs=3, steps_per_epoch=7), 0.999))",
    ),
    Row(
        "SGD(GROUPS, lr=0.05, momentum=0.9)",
        scheduler="CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=4)",
        jopt="SGD(GROUPS, lr=lr_scheduler.CyclicLR(0.01, 0.1, 4), "
        "momentum=lr_scheduler.CyclicMomentum(step_size_up=4))",
    ),
    Row(
        "Adadelta(GROUPS, lr=1.0)",
        "[{'params': 'bias', 'lr': 0.5}, {'params': 'kernel'}]",
        scheduler="StepLR(step_size=5, gamma=0.5)",
        jopt="Adadelta([{'params': 'bias', 'lr': lr_scheduler.StepLR(0.5, 5, 0.5)}, "
        "{'params': ''}], lr_scheduler.StepLR(1.0, 5, 0.5))",
    ),
    Row(
        "ASGD(GROUPS, lr=0.05, lambd=0.1, t0=4)",
        scheduler="ExponentialLR(gamma=0.7)",
        jopt="ASGD(GROUPS, lr_scheduler.ExponentialLR(0.05, 0.7), 0.1, t0=4)",
    ),
    Row(
        "SGD(GROUPS, lr=0.05, momentum=0.9)",
        scheduler="ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1)",
        jopt="jopt.chain(SGD(GROUPS, lr=0.05, momentum=0.9), lr_scheduler."
        "ReduceLROnPlateau(0.05, factor=0.5, patience=2, cooldown=1))",
    ),
)


def run(row, held):
    """Yield the parameters after every step of torch's optimizer.

    The state dict after ten steps goes into ``held``, by paths.
    """
    import math

    import torch

    params = {n: torch.tensor(p, requires_grad=True) for n, p in PARAMS.items()}
    groups = eval(row.groups)
    for group in groups:
        where = group["params"]
        group["params"] = [p for n, p in params.items() if re.search(where, n)]
    optimizer = eval(row.optimizer, vars(torch.optim) | {"GROUPS": groups})
    scheduler = None
    if row.scheduler:
        text = row.scheduler.replace("(", "(optimizer, ", 1)
        known = vars(torch.optim.lr_scheduler) | {"optimizer": optimizer}
        scheduler = eval(text, known)
    for step in range(STEPS):
        for n, p in params.items():
            p.grad = torch.tensor(GRADS[n][step])
        if row.clip:
            known = vars(torch.nn.utils) | {"math": math, "parameters": params.values()}
            eval(row.clip.format("parameters, "), known)
        optimizer.step()
        if "Plateau" in row.scheduler:
            scheduler.step(METRICS[step])
        elif scheduler:
            scheduler.step()
        yield flat({n: p.detach().clone() for n, p in params.items()})
        if step + 1 == HALF and row.is_saved:
            theirs = optimizer.state_dict()
            for i, group in enumerate(theirs["param_groups"]):
                held[f"{row.recipe}: lr {i}"] = np.array(group["lr"])
            for i, entry in theirs["state"].items():
                known = {n: x for n, x in entry.items() if x is not None}
                held |= {
                    f"{row.recipe}: {i} {n}": np.array(x) for n, x in known.items()
                }


def signature(function):
    """Names and defaults, in order; what has none is null, as None is."""
    parameters = inspect.signature(function).parameters.values()
    return [[p.name, None if p.default is p.empty else p.default] for p in parameters]


def oracle():
    """What torch computes, ``steps`` (rows, steps, parameters), and what it keeps."""
    return result_of("torch_front_door", "steps", x64=True)


def calls():
    """What torch's calls are, as plain data."""
    return json.loads(str(result_of("torch_front_door", "calls", x64=True)))


def main(arguments):
    """Renew the golden values."""
    if arguments[:1] == ["--run"]:
        what, path = arguments[1:]
        import torch

        if what == "steps":
            torch.set_default_dtype(torch.float64)
            held = {}
            held["steps"] = np.array([list(run(row, held)) for row in ROWS])
            with open(path, "wb") as file:
                np.savez(file, **held)
            return
        import torch.optim.swa_utils as more
        from torch.optim import lr_scheduler

        known = vars(torch.optim) | vars(lr_scheduler) | vars(more)
        found = {n: signature(known[n]) for n in (*OPTIMIZERS, *SCHEDULERS)}
        np.save(path, json.dumps(found))
        return
    release = f"torch {version('torch')}"
    lines = [f"{json.dumps(n)}: {json.dumps(x)}" for n, x in calls().items()]
    body = ",\n".join([f'"version": {json.dumps(release)}', *lines])
    CALLS.write_text("{\n" + body + "\n}\n")
    recipes = np.array([row.recipe for row in ROWS])
    np.savez_compressed(GOLDEN, rows=recipes, version=release, **oracle())


if __name__ == "__main__":
    main(sys.argv[1:])
