"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, Scalar, at, double, steps


def adagrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    initial_accumulator_value: float = 0.1,
    eps: Scalar = 1e-7,
    eps_in_sqrt: bool = True,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Duchi, Hazan & Singer, 2011, "Adaptive subgradient methods", figure 1.

    A coordinate that has seen no gradient makes no step.
    """
    p = double(p)
    s = np.full(p.shape, initial_accumulator_value)
    for t, g in steps(grads):
        e = at(eps, t)
        s = s + np.abs(g) ** 2
        root = np.sqrt(s + e) if eps_in_sqrt else np.sqrt(s) + e
        root = np.where(s == 0, 1.0, root)  # no gradient so far: no step
        p = p - at(learning_rate, t) * (g / root + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("adagrad", rate_for_descent=0.3),
    Case("adagrad", {"initial_accumulator_value": 0.0}, rate_for_descent=0.3),
    Case("adagrad", {"eps_in_sqrt": False, "eps": 1e-4}, rate_for_descent=0.3),
    Case("adagrad", {"weight_decay": 0.01}, rate_for_descent=0.3),
    transform("scale_by_rss", core_of(adagrad)),
]

ROWS = (
    keras("adagrad", "Adagrad(0.05)", "adagrad(0.05)"),
    keras("adagrad-schedule", "Adagrad(DECAY)", "adagrad(DECAY)"),
    keras(
        "adagrad-from-zero",
        "Adagrad(0.05, initial_accumulator_value=0.0)",
        "adagrad(0.05, 0.0)",
    ),
    torch(
        "adagrad",
        "Adagrad(lr=0.05, initial_accumulator_value=0.1)",
        "adagrad(0.05, 0.1, 1e-10, eps_in_sqrt=False)",
    ),
    torch(
        "adagrad-from-zero",
        "Adagrad(lr=0.05)",
        "adagrad(0.05, 0.0, 1e-10, eps_in_sqrt=False)",
    ),
    torch(
        "adagrad-large-eps",
        "Adagrad(lr=0.05, eps=1e-5)",
        "adagrad(0.05, 0.0, 1e-5, eps_in_sqrt=False)",
    ),
    torch(
        "adagrad-lr-decay",
        "Adagrad(lr=0.05, lr_decay=0.1)",
        "adagrad(inverse_time_decay(0.05, 1, 0.1), 0.0, 1e-10, eps_in_sqrt=False)",
    ),
    optax("adagrad", "adagrad(0.05)"),
    optax("adagrad-from-zero", "adagrad(0.05, 0.0, 1e-10)"),
    torch(
        "adagrad-l2",
        "Adagrad(lr=0.05, lr_decay=0.1, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adagrad(inverse_time_decay(0.05, 1, 0.1), 0.0,"
        " 1e-10, eps_in_sqrt=False))",
    ),
    torch(
        "adagrad-maximize",
        "Adagrad(lr=0.05, maximize=True)",
        "chain(scale(-1.0), adagrad(0.05, 0.0, 1e-10, eps_in_sqrt=False))",
    ),
)
