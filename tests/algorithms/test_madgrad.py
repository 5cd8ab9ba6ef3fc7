"""MADGRAD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, transform
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def madgrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    eps: Scalar = 1e-6,
) -> Iterator[Array]:
    """Defazio & Jelassi, 2021, "Adaptivity without compromise", algorithm 1.

    The weight decay is L2 regularization, a part of the gradient.
    """
    x = x0 = double(p)
    s = np.zeros_like(x0)
    v = np.zeros(x0.shape)
    for t, g in steps(grads):
        lr, e, c = at(learning_rate, t), at(eps, t), 1 - at(momentum, t)
        lamda = (lr + e if lr != 0 else 0.0) * np.sqrt(t)
        g = g + at(weight_decay, t) * x
        s = s + lamda * g
        v = v + lamda * np.abs(g) ** 2
        z = x0 - s / (np.cbrt(v) + e)
        x = (1 - c) * x + c * z
        yield x


def scale_by_madgrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar = 0.9,
    eps: Scalar = 1e-6,
) -> Iterator[Array]:
    """Defazio & Jelassi, 2021, "Adaptivity without compromise", algorithm 1."""
    x = double(p)
    s, v = np.zeros_like(x), np.zeros(x.shape)
    for t, g in steps(grads):
        lr, e = at(learning_rate, t), at(eps, t)
        lamda = (lr + e if lr != 0 else 0.0) * np.sqrt(t)
        s = s + lamda * g
        v = v + lamda * np.abs(g) ** 2
        z = x - s / (np.cbrt(v) + e)
        yield (1 - at(momentum, t)) * (z - x)


CASES = [
    Case("madgrad"),
    Case("madgrad", {"momentum": 0.5, "weight_decay": 0.1}),
    transform("scale_by_madgrad", learning_rate=0.1),
]

ROWS = (
    torch_like(
        "madgrad",
        "madgrad",
        "MADGRAD(lr=0.01)",
        "madgrad(0.01)",
    ),
    torch_like(
        "madgrad",
        "madgrad-schedule",
        "MADGRAD(lr=0.05, momentum=0.5, weight_decay=0.1, eps=1e-4)",
        "madgrad(DECAY, 0.5, 0.1, 1e-4)",
    ),
    torch_like(
        "madgrad",
        "madgrad-without-momentum",
        "MADGRAD(lr=0.01, momentum=0.0)",
        "madgrad(0.01, 0.0)",
    ),
    # optax takes the root of the step number in float32.
    optax("madgrad", "madgrad(0.01, weight_decay=0.1)", tol64=2e-7),
)
