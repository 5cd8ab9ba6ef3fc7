"""Optimistic gradient descent and optimistic Adam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def optimistic_gradient_descent(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
) -> Iterator[Array]:
    """Daskalakis et al., 2018, "Training GANs with optimism", equation 2."""
    p = double(p)
    before = None
    for t, g in steps(grads):
        a, b = at(alpha, t), at(beta, t)
        before = g if before is None else before
        p = p - at(learning_rate, t) * ((a + b) * g - b * before)
        before = g
        yield p


def optimistic_adam_v2(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    nesterov: bool = True,
) -> Iterator[Array]:
    """Daskalakis et al., 2018, "Training GANs with optimism", algorithm 1.

    ``nesterov`` is Dozat's look ahead.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    before = None
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        root = np.sqrt(v / (1 - beta2**t) + at(eps_root, t)) + at(eps, t)
        u = m_hat / root
        change = 0.0 if before is None else u - before
        before = u
        p = p - at(learning_rate, t) * (at(alpha, t) * u + at(beta, t) * change)
        yield p


optimistic_adam = optimistic_adam_v2  # without an optimism of its own
CASES = [
    Case("optimistic_gradient_descent", {"beta": 0.5}, rate_for_descent=0.02),
    Case("optimistic_adam"),
    Case("optimistic_adam_v2", {"alpha": 0.8, "beta": 0.3, "nesterov": False}),
    transform("scale_by_optimistic_gradient", core_of(optimistic_gradient_descent)),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    optax("optimistic-gradient-descent", "optimistic_gradient_descent(0.05)"),
    optax(
        "optimistic-gradient-descent-schedule",
        f"optimistic_gradient_descent({COSINE}, 0.8, 0.3)",
    ),
    optax("optimistic-adam", "optimistic_adam(0.01)"),
    optax("optimistic-adam-optimism", "optimistic_adam(0.01, 0.003, nesterov=False)"),
    optax("optimistic-adam-v2", f"optimistic_adam_v2({COSINE}, alpha=0.8, beta=0.3)"),
)
