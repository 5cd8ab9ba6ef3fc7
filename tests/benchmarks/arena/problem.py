"""What optimizers are compared on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.inspect import RaceTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem of the arena.

    Args:
      title: What it is, in a line.
      about: What it shows, and where it is from.
      task: Makes the task. A function, because data take time to load.
      goal: The metric that solves it; None means AdamW's at the end.
      field: The optimizers instead of those of `field.FIELD`.
      also: Optimizers in addition to them.
      solvers: Those of `solving.SOLVERS` that run on it, too; for tasks without noise.
    """

    title: str
    about: str
    task: Callable[[], RaceTask]
    goal: float | None = None
    field: Mapping[str, str] | None = None
    also: Mapping[str, str] = dataclasses.field(default_factory=dict)
    solvers: tuple[str, ...] = ()


def exact(
    init: Callable[[jax.Array], Any],
    loss: Callable[[Any], jax.Array],
    steps: int,
    kind: type[RaceTask] = RaceTask,
    **more: Any,
) -> RaceTask:
    """The task of a function that is known exactly: no data, no noise."""
    none = np.zeros(1, np.float32)
    return kind(
        init=init,
        loss=lambda params, batch, key: loss(params),
        train=lambda key: jnp.zeros(1),
        validation=none,
        test=none,
        steps=steps,
        **more,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeastSquares(RaceTask):
    """A task whose loss is a sum of squares, or a multiple of it.

    Args:
      residuals: ``residuals(params)``, what is squared.
    """

    residuals: Callable[[Any], Any]


class OneByOne(RaceTask):
    """A task that computes the gradients of its runs one after another.

    XLA:CPU has a fast product of two large matrices, but none of many pairs.
    """

    def value_and_grad(self, params: Any, batch: Any, key: jax.Array) -> Any:
        both = jax.value_and_grad(self.loss)
        return jax.custom_batching.sequential_vmap(both)(params, batch, key)
