"""ACProp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def acprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zhuang et al., 2021, "Momentum centering and asynchronous update".

    The first step, which has no ``s`` to divide by, is the gradient.
    """
    p = double(p)
    m = np.zeros_like(p)
    s = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        if t == 1:
            u = g
        else:
            s_hat = s / (1 - beta2 ** (t - 1))
            u = g / (np.sqrt(s_hat) + at(eps, t))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        s = beta2 * s + (1 - beta2) * np.abs(g - m) ** 2 + at(eps_root, t)
        yield p


CASES = [
    Case("acprop", {"weight_decay": 0.1}),
    transform("scale_by_acprop", core_of(acprop), eps=1e-8, eps_root=1e-8),
]

ROWS = (
    # optax's residual is g - m_(t-1), which is g - m_t divided by b1; and it divides
    # the first gradient by 1 + eps.
    optax(
        "acprop-up-to-scale",
        "acprop(lambda t: 0.01 * ((t < 1) * (1 + 1e-6 / 0.9) + (t > 0) / 0.9), 0.9,"
        " 0.99, eps=1e-6 / 0.9, eps_root=1e-6 / 0.81, weight_decay=0.0)",
        "acprop(0.01, 0.9, 0.99, 1e-6, 1e-6)",
    ),
)
