"""One factory with the arguments that the laws are tested for; twins made of twins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import jopt
from jopt.testing.problem import loss
from jopt.testing.subject import Subject


Tree = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case(Subject):
    """One factory with some arguments, of which everything is known."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | None = 0.01  # None: a transformation, not an optimizer
    twin: Callable[..., Iterator[Any]] | None = None  # else the one named so
    looks_at_all_leaves: bool = False  # the twin takes trees, not single leaves
    complex_leaves: bool = True
    rate_for_descent: float = 0.05  # at which a quadratic and Rosenbrock go down
    needs_value: bool = False  # the twin then takes value=loss
    moves_without_gradient: bool = False  # by a decay that its arguments do not name
    integer_leaves: bool = False
    largest_float16: float = 6e4
    part: bool = False  # the core of an optimizer that has a row of its own
    is_strict = True
    is_foreign = False
    has_twin = True

    def __post_init__(self) -> None:
        if "decay" in self.id:
            object.__setattr__(self, "moves_without_gradient", True)

    @property
    def id(self) -> str:
        # A function by its name: workers have to agree on it.
        options = ",".join(
            f"{k}={getattr(v, '__name__', v)}" for k, v in self.options.items()
        )
        return f"{self.name}({options})"

    @property
    def tx(self) -> jopt.GradientTransformation:
        """The transformation."""
        return self.make()

    @property
    def recipe(self) -> Any:
        """The call that makes the transformation."""
        return self.make().recipe

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
        twin = self.twin or _twin(self.name)
        options = dict(self.options)
        if self.is_optimizer:
            options["learning_rate"] = self.learning_rate
        if self.needs_value:
            options["value"] = loss
        if self.looks_at_all_leaves:
            yield from twin(params, grads, **options)
            return
        runs = {n: twin(p, [g[n] for g in grads], **options) for n, p in params.items()}
        for _ in grads:
            yield {name: next(run) for name, run in runs.items()}


def _twin(name: str) -> Callable[..., Iterator[Any]]:
    # The catalogue imports the files that declare cases, and they import this one.
    from tests.catalogue import TWINS

    if name not in TWINS:
        raise LookupError(f"the file of the case {name!r} has no twin: def {name}(…)")
    return TWINS[name]


def core_of(optimizer: Callable[..., Iterator[Any]], **fixed: Any) -> Any:
    """The twin of a ``scale_by_*``: the steps of its optimizer at rate -1."""

    def updates(
        p: np.ndarray, grads: list[np.ndarray], **options: Any
    ) -> Iterator[Any]:
        before = np.zeros_like(p)
        for after in optimizer(before, grads, learning_rate=-1.0, **fixed, **options):
            yield after - before
            before = after

    updates.of_part = True  # type: ignore[attr-defined]
    return updates


def times(factor: float) -> Any:
    """The twin of what only multiplies."""
    return lambda p, grads, **_: (factor * g for g in grads)


def transform(name: str, /, twin: Any = None, **options: Any) -> Case:
    part = getattr(twin, "of_part", False)
    return Case(name, options, learning_rate=None, twin=twin, part=part)
