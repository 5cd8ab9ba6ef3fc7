"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, Scalar, at, double, steps


def adadelta(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zeiler, 2012, "ADADELTA: an adaptive learning rate method", algorithm 1.

    The weight decay is L2 regularization, a part of the gradient.
    """
    p = double(p)
    mean_g2 = np.zeros(p.shape)
    mean_d2 = np.zeros(p.shape)
    for t, g in steps(grads):
        r, e = at(rho, t), at(eps, t)
        g = g + at(weight_decay, t) * p
        mean_g2 = r * mean_g2 + (1 - r) * np.abs(g) ** 2
        d = np.sqrt(mean_d2 + e) / np.sqrt(mean_g2 + e) * g
        mean_d2 = r * mean_d2 + (1 - r) * np.abs(d) ** 2
        p = p - at(learning_rate, t) * d
        yield p


CASES = [
    Case("adadelta", rate_for_descent=5.0),
    Case("adadelta", {"weight_decay": 0.1, "rho": 0.8}, rate_for_descent=5.0),
    transform("scale_by_adadelta", core_of(adadelta)),
]

KERNEL_ONLY = "{'kernel': True, 'bias': False}"
ROWS = (
    keras("adadelta", "Adadelta(1.0)", "adadelta(1.0, 0.95, 1e-7)"),
    keras("adadelta-schedule", "Adadelta(DECAY)", "adadelta(DECAY, 0.95, 1e-7)"),
    torch("adadelta", "Adadelta(lr=1.0)", "adadelta(1.0)"),
    torch("adadelta-schedule", "Adadelta(lr=0.05, rho=0.95)", "adadelta(DECAY, 0.95)"),
    torch(
        "adadelta-l2",
        "Adadelta(lr=1.0, weight_decay=0.1)",
        "adadelta(1.0, weight_decay=0.1)",
    ),
    optax("adadelta", "adadelta(1.0)"),
    optax("adadelta-rho", "adadelta(1.0, 0.95, 1e-7)"),
    optax("adadelta-weight-decay", "adadelta(1.0, weight_decay=0.1)"),
    optax(
        "adadelta-mask",
        f"adadelta(1.0, weight_decay=0.1, weight_decay_mask={KERNEL_ONLY})",
    ),
    torch(
        "adadelta-maximize",
        "Adadelta(lr=1.0, maximize=True)",
        "chain(scale(-1.0), adadelta(1.0))",
    ),
)
