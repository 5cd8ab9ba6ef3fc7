"""Simplified AdEMAMix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def simplified_ademamix(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Morwani et al., 2025, "Connections between schedule-free optimizers, AdEMAMix".

    And accelerated SGD variants; its algorithm for simplified AdEMAMix.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        v_hat = v / (1 - beta2**t)
        root = np.sqrt(v_hat + at(eps_root, t)) + at(eps, t)
        u = (m + at(alpha, t) * g) / root
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("simplified_ademamix", {"alpha": 2.0}, rate_for_descent=1e-3),
    transform("scale_by_simplified_ademamix", core_of(simplified_ademamix)),
]

ROWS = (
    optax("simplified-ademamix", "simplified_ademamix(0.001)"),
    optax(
        "simplified-ademamix-alpha",
        "simplified_ademamix(0.001, 0.9, 0.99, cosine_decay_schedule(3.0, 12), 1e-5,"
        " 1e-8, weight_decay=0.1)",
    ),
)
