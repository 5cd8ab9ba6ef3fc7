"""AdaBelief."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax, pytorch_optimizer
from tests.twins.base import Array, Scalar, at, double, steps


def adabelief(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
) -> Iterator[Array]:
    """Zhuang et al., 2020, "AdaBelief optimizer", algorithm 2.

    Its epsilon is both of ours.
    """
    p = double(p)
    m = np.zeros_like(p)
    s = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * np.abs(g - m) ** 2 + at(eps_root, t)
        m_hat = m / (1 - beta1**t)
        s_hat = s / (1 - beta2**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        u = m_hat / (np.sqrt(s_hat) + at(eps, t))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("adabelief", {"eps": 1e-8}),
    Case("adabelief", {"nesterov": True, "weight_decay": 0.1}),
    transform("scale_by_belief", core_of(adabelief)),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    pytorch_optimizer("adabelief", "AdaBelief(lr=0.01)", "adabelief(0.01)"),
    pytorch_optimizer(
        "adabelief-eps",
        "AdaBelief(lr=0.01, betas=(0.8, 0.95), eps=1e-6)",
        "adabelief(0.01, 0.8, 0.95, 1e-6, 1e-6)",
    ),
    pytorch_optimizer(
        "adabelief-weight-decay-schedule",
        "AdaBelief(lr=0.05, weight_decay=0.1)",
        "adabelief(DECAY, weight_decay=0.1)",
    ),
    optax("adabelief", "adabelief(0.01)"),
    optax(
        "adabelief-nesterov",
        f"adabelief({COSINE}, 0.8, 0.95, 1e-6, 1e-8, nesterov=True)",
    ),
)
