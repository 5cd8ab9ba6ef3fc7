"""NovoGrad."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, l2_norm, steps


def novograd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Ginsburg et al., 2019, "Stochastic gradient methods with layer-wise", alg. 1."""
    p = double(p)
    m = np.zeros_like(p)
    v = 0.0
    for t, g in steps(grads):
        square = l2_norm(g) ** 2
        v = square if t == 1 else at(b2, t) * v + (1 - at(b2, t)) * square
        u = g / (np.sqrt(v + at(eps_root, t)) + at(eps, t)) + at(weight_decay, t) * p
        m = u if t == 1 else at(b1, t) * m + u
        p = p - at(learning_rate, t) * m
        yield p


CASES = [
    Case("novograd"),
    transform("scale_by_novograd", core_of(novograd), eps=1e-6),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    torch_like(
        "pytorch_optimizer",
        "novograd-schedule",
        "NovoGrad(lr=0.05, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.1)",
        "novograd(DECAY, 0.95, 0.98, 1e-8, weight_decay=0.1)",
    ),
    optax("novograd", "novograd(0.01)"),
    optax("novograd-decay", f"novograd({COSINE}, 0.95, 0.98, weight_decay=0.1)"),
)
