"""LaProp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import pytorch_optimizer
from tests.twins.base import Array, EpsMode, Scalar, at, denominator, double, steps


def laprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-15,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Ziyin, Wang & Ueda, 2020, "LaProp", algorithm 1."""
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        correction = 1 - beta2**t
        e, e_root = at(eps, t), at(eps_root, t)
        root = denominator(v / correction, correction, e, e_root, eps_mode)
        m = beta1 * m + (1 - beta1) * g / root
        u = m / (1 - beta1**t)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("laprop", {"weight_decay": 0.1, "eps": 1e-8}),
    transform("scale_by_laprop", core_of(laprop), eps=1e-8),
]

ROWS = (
    # pytorch_optimizer applies the rate before the average: the same if it is constant.
    # Its foreach path has float32 step sizes.
    pytorch_optimizer(
        "laprop",
        "LaProp(lr=0.01, foreach=False)",
        "laprop(0.01, eps_root=1e-15, eps_mode='before')",
    ),
    pytorch_optimizer(
        "laprop-betas",
        "LaProp(lr=0.01, betas=(0.8, 0.95), eps=1e-5, foreach=False)",
        "laprop(0.01, 0.8, 0.95, 1e-5, 1e-15, eps_mode='before')",
    ),
)
