"""COCOB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def cocob(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Array]:
    """Orabona & Tommasi, 2017, "Training deep networks without learning rates".

    Algorithm 2, of which the gradients are the negative ones.
    """
    w1 = w = double(p)
    largest, sizes = np.full_like(w, eps), np.zeros_like(w)
    reward, theta = np.zeros_like(w), np.zeros_like(w)
    for t, g in steps(grads):
        g = -at(learning_rate, t) * (g + weight_decay * w)
        largest = np.maximum(largest, np.abs(g))
        sizes = sizes + np.abs(g)
        reward = np.maximum(reward + (w - w1) * g, 0)
        theta = theta + g
        bound = largest * np.maximum(sizes + largest, alpha * largest)
        new = w1 + theta / bound * (largest + reward)
        w = new if moves else w
        yield new


def scale_by_cocob(p: Array, grads: Iterable[Array], **options: Any) -> Iterator[Array]:
    """At rate 1, and parameters that stay where they are."""
    for new in cocob(p, grads, learning_rate=1.0, moves=False, **options):
        yield new - double(p)


# Larger first steps than the default: 1e-6 does not move a parameter of size 1 in
# bfloat16.
CASES = [
    Case(
        "cocob",
        {"eps": 1e-3},
        learning_rate=1.0,
        complex_leaves=False,
        rate_for_descent=1.0,
    ),
    Case("scale_by_cocob", {"eps": 1e-3}, learning_rate=None, complex_leaves=False),
]

ROWS = (
    optax("cocob", "cocob()"),
    optax("cocob-decay", "cocob(0.5, 2.0, 1e-6, 0.1)"),
)
