"""Grams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case
from tests.parity.row import pytorch_optimizer
from tests.twins.base import Array, Scalar, at, double, phase, steps


def grams(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Cao, Li & Song, 2024, "Grams", algorithm 1."""
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = m_hat / (np.sqrt(v_hat + at(eps_root, t)) + at(eps, t))
        u = phase(g) * np.abs(u)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("grams", {"b1": 0.8}),
]

ROWS = (
    pytorch_optimizer("grams", "Grams(0.01)", "grams(0.01, eps=1e-6)"),
    pytorch_optimizer(
        "grams-schedule-weight-decay",
        "Grams(0.05, (0.8, 0.95), weight_decay=0.1)",
        "grams(DECAY, 0.8, 0.95, 1e-6, weight_decay=0.1)",
    ),
)
