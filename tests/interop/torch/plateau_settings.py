"""The runs with a plateau that are compared with torch.

A run is an optimizer and its arguments, a scheduler before the plateau, and the
arguments of the plateau. In the scheduler ``o`` is torch's optimizer, and here the
learning rate, or those of the groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Run(NamedTuple):
    """One run."""

    optimizer: str
    arguments: dict[str, Any]
    scheduler: str | None
    plateau: dict[str, Any]
    rates: tuple[float, ...] = ()  # of the groups "a" and "b"


# Better, then for long not, then better, then not.
METRICS = [3.0, *[2.0] * 4, *[1.9] * 5, *[1.5] * 10]
STEPS = len(METRICS)
TARGETS = np.random.default_rng(0).normal(size=(STEPS, 5))
KEPT = [4, 9, STEPS - 1]  # the steps after which the parameters are recorded

ASGD = {"lr": 0.1, "lambd": 0.3, "t0": 2}
LBFGS = {"lr": 0.1, "max_iter": 3}
MOMENTUM = {"lr": 0.1, "momentum": 0.9}
SHORT = {"patience": 1, "factor": 0.5}
COOL = {"patience": 1, "factor": 0.3, "cooldown": 2, "threshold": 0.1, "min_lr": 0.02}
MAX = {"mode": "max", "patience": 2, "factor": 0.5, "threshold": 0.05}
MAX["threshold_mode"] = "abs"
STOPS = {"patience": 0, "factor": 0.1, "min_lr": 0.03, "eps": 0.01}
SEQUENCE = (
    "SequentialLR(o, [LinearLR(o, 0.5, total_iters=4), ExponentialLR(o, 0.9)], [9])"
)
RUNS: dict[str, Run] = {
    "an average": Run("ASGD", ASGD, None, COOL),
    "an average, after steps": Run("ASGD", ASGD, "StepLR(o, 3, 0.7)", SHORT),
    "groups": Run("ASGD", ASGD, None, COOL | {"min_lr": [0.05, 0.001]}, (0.2, 0.02)),
    "iterations, after a sequence": Run("LBFGS", LBFGS, SEQUENCE, MAX),
    "iterations below 0": Run("LBFGS", LBFGS, "CosineAnnealingLR(o, 7, 0.01)", SHORT),
    "no rate": Run("Rprop", {"lr": 0.1}, "StepLR(o, 3, 0.7)", SHORT),
    "a momentum, after a chain": Run(
        "SGD",
        MOMENTUM,
        "ChainedScheduler([ExponentialLR(o, 0.95), CosineAnnealingLR(o, 7, 0.01)])",
        STOPS,
    ),
    "after what multiplies": Run(
        "SGD",
        MOMENTUM,
        "ChainedScheduler([ExponentialLR(o, 0.95), StepLR(o, 4, 0.8)])",
        COOL,
    ),
    "after what sets": Run("SGD", MOMENTUM, "LambdaLR(o, lambda t: 0.9**t)", SHORT),
    "groups, after steps": Run(
        "SGD",
        MOMENTUM,
        "StepLR(o, 3, 0.7)",
        SHORT | {"min_lr": [0.04, 0.001]},
        (0.2, 0.02),
    ),
}
