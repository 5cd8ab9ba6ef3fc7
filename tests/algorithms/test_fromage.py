"""Fromage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, l2_norm, norm_ratio, steps


def fromage(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    min_norm: Scalar = 1e-6,
) -> Iterator[Array]:
    """Bernstein et al., 2020, "On the distance between two neural networks", alg. 1."""
    p = double(p)
    for t, g in steps(grads):
        lr, least = at(learning_rate, t), at(min_norm, t)
        u = norm_ratio(p, g, max(l2_norm(g), least), least) * g
        p = (p - lr * u) / np.sqrt(1 + lr**2)
        yield p


CASES = [
    Case("fromage", moves_without_gradient=True),
]

ROWS = (
    torch_like(
        "pytorch_optimizer",
        "fromage-schedule",
        "Fromage(lr=0.05)",
        "fromage(DECAY, 0.0)",
    ),
    optax("fromage", "fromage(0.05)"),
    optax("fromage-min-norm", "fromage(0.05, 10.0)"),
)
