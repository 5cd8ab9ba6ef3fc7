"""Gradient descent on signs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def sign_sgd(
    p: Array, grads: Iterable[Array], *, learning_rate: Scalar
) -> Iterator[Array]:
    """Bernstein et al., 2018, "signSGD: compressed optimisation", algorithm 1."""
    p = double(p)
    for t, g in steps(grads):
        p = p - at(learning_rate, t) * np.sign(g)
        yield p


def signum(
    p: Array, grads: Iterable[Array], *, learning_rate: Scalar, beta: Scalar = 0.9
) -> Iterator[Array]:
    """Bernstein et al., 2018, "signSGD: compressed optimisation", algorithm 2."""
    p = double(p)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        b = at(beta, t)
        m = b * m + (1 - b) * g
        p = p - at(learning_rate, t) * np.sign(m)
        yield p


CASES = [
    Case("sign_sgd", rate_for_descent=2.0**-6),
    Case("signum", rate_for_descent=2.0**-7),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    optax("sign-sgd", f"sign_sgd({COSINE})"),
    optax("signum", "signum(0.01)"),
    optax("signum-beta", f"signum({COSINE}, 0.6)"),
)
