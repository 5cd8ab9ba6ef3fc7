"""What every solver returns, and why it stopped."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Status(enum.IntEnum):
    """Why a solver stopped. What is positive is convergence."""

    RUNNING = 0
    GTOL = 1
    FTOL = 2
    XTOL = 3
    ITERATIONS = -1
    STUCK = -2
    NOT_FINITE = -3
    CALLBACK = -4


MESSAGES = {
    Status.RUNNING: "it has not stopped yet",
    Status.GTOL: "converged: no component of the (projected) gradient exceeds gtol",
    Status.FTOL: "converged: the relative reduction of the value is below ftol",
    Status.XTOL: "converged: the relative length of the step is below xtol",
    Status.ITERATIONS: (
        "not converged: max_iterations is reached; continue from params, or raise it"
    ),
    Status.STUCK: (
        "not converged: no lower value was found along the direction. Perhaps the "
        "precision of the value is exhausted (use float64, or a larger tolerance), or "
        "the gradient is wrong"
    ),
    Status.NOT_FINITE: "not converged: value or gradient is not finite at x0",
    Status.CALLBACK: "stopped by callback",
}


class MinimizeResult(NamedTuple):
    """The result of `minimize`, `levenberg_marquardt` and `gauss_newton`.

    It is a tree of arrays: ``jit`` and ``vmap`` return it like any other.
    """

    params: Any  # the best parameters, like x0
    value: jax.Array  # of the function there; half the sum of squares of residuals
    grad: Any  # of the value, like x0
    converged: jax.Array  # bool
    status: jax.Array  # int32, why it stopped; see `message`
    iterations: jax.Array  # int32, steps that were accepted
    evaluations: jax.Array  # int32, of the value and its gradient, or the residuals
    aux: Any = None  # what the function returned beside the value there, with has_aux

    @property
    def message(self) -> Any:
        """Why it stopped, in words; an array of texts after ``vmap``."""
        texts = np.vectorize(lambda i: MESSAGES[Status(i)], otypes=[object])
        return texts(self.status)[()]


def first_status(reasons: dict[Status, jax.Array]) -> jax.Array:
    """The first reason to stop that holds, or that there is none."""
    found = jnp.int32(Status.RUNNING)
    for status, holds in reversed(reasons.items()):
        found = jnp.where(holds, jnp.int32(status), found)
    return found
