"""THE table: every optimizer and transformation that the laws are tested for.

To add a row, add a ``Case`` with the factory's name and the arguments to test it with;
a factory without a row fails ``test_every_factory_has_a_row``. The arguments also go
to the function of the same name in `reference.py`, so write that first, from the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import jopt
from tests import reference


Tree = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One factory with some arguments."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | None = 0.01  # None: a transformation, not an optimizer
    twin: Callable[..., Iterator[Any]] | None = None  # else reference.<name>
    looks_at_all_leaves: bool = False  # the twin takes trees, not single leaves
    complex_leaves: bool = True
    rate_for_descent: float = 0.05  # at which a quadratic and Rosenbrock go down

    @property
    def id(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name}({options})"

    @property
    def is_optimizer(self) -> bool:
        return self.learning_rate is not None

    def make(self, **changes: Any) -> jopt.GradientTransformation:
        """The transformation, with arguments changed."""
        arguments = dict(self.options)
        if self.is_optimizer:
            arguments["learning_rate"] = self.learning_rate
        return jopt.get(self.name, **(arguments | changes))

    def expected(self, params: Tree, grads: list[Tree]) -> Iterator[Tree]:
        """The parameters after each step, or the updates of a transformation."""
        twin = self.twin or getattr(reference, self.name)
        options = dict(self.options)
        if self.is_optimizer:
            options["learning_rate"] = self.learning_rate
        if self.looks_at_all_leaves:
            yield from twin(params, grads, **options)
            return
        runs = {n: twin(p, [g[n] for g in grads], **options) for n, p in params.items()}
        for _ in grads:
            yield {name: next(run) for name, run in runs.items()}


def core_of(optimizer: Callable[..., Iterator[Any]], **fixed: Any) -> Any:
    """The twin of a ``scale_by_*``: the steps of its optimizer at rate -1."""

    def updates(
        p: np.ndarray, grads: list[np.ndarray], **options: Any
    ) -> Iterator[Any]:
        before = np.zeros_like(p)
        for after in optimizer(before, grads, learning_rate=-1.0, **fixed, **options):
            yield after - before
            before = after

    return updates


def times(factor: float) -> Any:
    """The twin of what only multiplies."""
    return lambda p, grads, **_: (factor * g for g in grads)


def transform(name: str, /, twin: Any = None, **options: Any) -> Case:
    return Case(name, options, learning_rate=None, twin=twin)


OPTIMIZERS = [
    Case("adadelta", rate_for_descent=5.0),
    Case("adadelta", {"weight_decay": 0.1, "rho": 0.8}, rate_for_descent=5.0),
    Case("adagrad", rate_for_descent=0.3),
    Case("adagrad", {"initial_accumulator_value": 0.0}, rate_for_descent=0.3),
    Case("adagrad", {"eps_in_sqrt": False, "eps": 1e-4}, rate_for_descent=0.3),
    Case("adam"),
    Case("adam", {"nesterov": True, "eps_root": 1e-9}),
    Case("adam", {"eps_mode": "before", "eps": 1e-7}),
    Case("adamax"),
    Case("adamax", {"eps_in_max": False, "eps": 1e-7}),
    Case("adamw", {"weight_decay": 0.1}),
    Case("amsgrad"),
    Case("amsgrad", {"maximum": "raw", "eps_mode": "before"}),
    Case("amsgrad", {"bias_correction_mu": False, "bias_correction_nu": False}),
    Case(
        "ftrl",
        {"l1": 0.001, "l2": 0.01, "beta": 0.1},
        complex_leaves=False,
        rate_for_descent=0.5,
    ),
    Case(
        "ftrl",
        {"learning_rate_power": -0.4, "l2_shrinkage": 0.01},
        complex_leaves=False,
        rate_for_descent=0.5,
    ),
    Case("lion", rate_for_descent=2.0**-6),
    Case("nadam"),
    Case("nadam", {"momentum_decay": 1.0, "eps": 1e-7}),
    Case("nadam", {"momentum_decay": 0.004}),
    Case("rmsprop", rate_for_descent=0.01),
    Case("rmsprop", {"centered": True, "momentum": 0.9}, rate_for_descent=0.003),
    Case("rmsprop", {"eps_in_sqrt": False, "momentum": 0.9, "lr_in_momentum": False}),
    Case("rmsprop", {"bias_correction": True, "initial_scale": 0.5}),
    Case("sgd"),
    Case("sgd", {"momentum": 0.9}),
    Case("sgd", {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True}),
]
TRANSFORMATIONS = [
    transform("add_decayed_weights", weight_decay=0.1),
    transform("adaptive_grad_clip", clipping=0.1),
    transform("centralize"),
    Case("clip", {"max_delta": 0.5}, learning_rate=None, complex_leaves=False),
    transform("clip_by_block_rms", threshold=0.3),
    Case(
        "clip_by_global_norm",
        {"max_norm": 0.5},
        learning_rate=None,
        looks_at_all_leaves=True,
    ),
    transform("clip_by_norm", max_norm=0.5),
    transform("ema", decay=0.9),
    transform("ema", decay=0.9, debias=False),
    transform("identity", times(1.0)),
    transform("scale", times(-0.3), step_size=-0.3),
    transform("scale_by_adadelta", core_of(reference.adadelta)),
    transform("scale_by_adam", core_of(reference.adam), b1=0.8),
    transform("scale_by_adamax", core_of(reference.adamax)),
    transform("scale_by_amsgrad", core_of(reference.amsgrad)),
    transform("scale_by_learning_rate", times(-0.2), learning_rate=0.2),
    transform("scale_by_lion", core_of(reference.lion, weight_decay=0.0)),
    transform("scale_by_nadam", core_of(reference.nadam), momentum_decay=1.0),
    transform("scale_by_rms", core_of(reference.rmsprop)),
    transform("scale_by_rss", core_of(reference.adagrad)),
    transform(
        "scale_by_schedule",
        lambda p, grads, **_: ((1 - t / 10) * g for t, g in enumerate(grads)),
        step_size_fn=jopt.linear_schedule(1.0, -9.0, 100),
    ),
    transform("scale_by_sign"),
    transform("scale_by_stddev", core_of(reference.rmsprop, centered=True)),
    transform("scale_by_trust_ratio"),
    transform("trace", decay=0.9, nesterov=True),
    transform("zero_nans"),
]
CASES = OPTIMIZERS + TRANSFORMATIONS
# Factories without a row, and why.
WITHOUT_ROW = {
    "add_noise": "random; test_transforms.py tests its distribution",
    "chain": "every optimizer is one; test_chain.py",
    "stateless": "is what its function is; test_transforms.py",
}
