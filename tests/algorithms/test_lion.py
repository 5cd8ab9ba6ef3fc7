"""Lion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax
from tests.twins.base import Array, Scalar, at, double, steps


def lion(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 1e-3,
) -> Iterator[Array]:
    """Chen et al., 2023, "Symbolic discovery of optimization algorithms".

    Algorithm 2: the step is the sign of one average, the memory is another.
    """
    p = double(p)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        c = beta1 * m + (1 - beta1) * g
        m = beta2 * m + (1 - beta2) * g
        p = p - at(learning_rate, t) * (np.sign(c) + at(weight_decay, t) * p)
        yield p


def soft_lion(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 1e-3,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Scalar = 1.0,
) -> Iterator[Array]:
    """Chen et al., 2023, "Symbolic discovery", with something softer than the sign."""
    p = double(p)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        c = at(b1, t) * m + (1 - at(b1, t)) * g
        m = at(b2, t) * m + (1 - at(b2, t)) * g
        if mode == "smooth":
            u = np.tanh(at(smooth_beta, t) * c)
        else:
            u = np.where(np.abs(c) < 1, c, np.sign(c))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    # The default has a decay.
    Case("lion", rate_for_descent=2.0**-6, moves_without_gradient=True),
    transform("scale_by_lion", core_of(lion, weight_decay=0.0)),
    Case(
        "lion",
        {"mode": "smooth", "smooth_beta": 5.0},
        twin=soft_lion,
        complex_leaves=False,
    ),
    Case("lion", {"mode": "refined"}, twin=soft_lion, complex_leaves=False),
]

KERNEL_ONLY = "{'kernel': True, 'bias': False}"
ROWS = (
    keras("lion", "Lion(0.01)", "lion(0.01, weight_decay=0.0)"),
    keras(
        "lion-weight-decay",
        "Lion(DECAY, weight_decay=0.1)",
        "lion(DECAY, weight_decay=0.1)",
    ),
    optax("lion", "lion(0.01)"),
    optax("lion-mask", f"lion(0.01, 0.8, 0.95, weight_decay=0.1, mask={KERNEL_ONLY})"),
    optax(
        "lion-smooth",
        "chain(scale_by_lion(0.8, 0.95, mode='smooth', smooth_beta=5.0), scale(-0.01))",
        "lion(0.01, 0.8, 0.95, weight_decay=0.0, mode='smooth', smooth_beta=5.0)",
    ),
    optax("lion-refined", "chain(scale_by_lion(mode='refined'), scale(-0.01))"),
)
