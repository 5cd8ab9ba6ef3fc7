"""AdaMax."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, Scalar, at, double, steps


def adamax(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_in_max: bool = True,
) -> Iterator[Array]:
    """Kingma & Ba, 2015, "Adam: a method for stochastic optimization", algorithm 2.

    The paper has no eps; it is part of the maximum or of the denominator.
    """
    p = double(p)
    m = np.zeros_like(p)
    u = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2, e = at(b1, t), at(b2, t), at(eps, t)
        m = beta1 * m + (1 - beta1) * g
        m_hat = m / (1 - beta1**t)
        if eps_in_max:
            u = np.maximum(beta2 * u, np.abs(g) + e)
            d = m_hat / u
        else:
            u = np.maximum(beta2 * u, np.abs(g))
            d = m_hat / (u + e)
        p = p - at(learning_rate, t) * d
        yield p


def adamaxw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-4,
    eps_in_max: bool = True,
) -> Iterator[Array]:
    """Kingma & Ba, 2015, "Adam", algorithm 2, with AdamW's weight decay."""
    p = double(p)
    m = np.zeros_like(p)
    u = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2, e = at(b1, t), at(b2, t), at(eps, t)
        m = beta1 * m + (1 - beta1) * g
        m_hat = m / (1 - beta1**t)
        if eps_in_max:
            u = np.maximum(beta2 * u, np.abs(g) + e)
            d = m_hat / u
        else:
            u = np.maximum(beta2 * u, np.abs(g))
            d = m_hat / (u + e)
        p = p - at(learning_rate, t) * (d + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("adamax"),
    Case("adamax", {"eps_in_max": False, "eps": 1e-7}),
    transform("scale_by_adamax", core_of(adamax)),
    Case("adamaxw", {"weight_decay": 0.1}),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    keras("adamax", "Adamax(0.01)", "adamax(0.01, eps=1e-7, eps_in_max=False)"),
    keras(
        "adamax-schedule",
        "Adamax(DECAY, beta_2=0.9)",
        "adamax(DECAY, b2=0.9, eps=1e-7, eps_in_max=False)",
    ),
    torch("adamax", "Adamax(lr=0.01)", "adamax(0.01)"),
    torch(
        "adamax-schedule",
        "Adamax(lr=0.05, betas=(0.9, 0.9))",
        "adamax(DECAY, b2=0.9)",
    ),
    optax("adamax", "adamax(0.01)"),
    optax("adamax-schedule", "adamax(cosine_decay_schedule(0.05, 8), 0.8, 0.9, 1e-6)"),
    torch(
        "adamax-l2",
        "Adamax(lr=0.05, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adamax(DECAY))",
    ),
    torch(
        "adamax-maximize",
        "Adamax(lr=0.01, maximize=True)",
        "chain(scale(-1.0), adamax(0.01))",
    ),
    optax("adamaxw", "adamaxw(0.01)"),
    optax("adamaxw-weight-decay", f"adamaxw({COSINE}, 0.8, 0.9, weight_decay=0.1)"),
)
