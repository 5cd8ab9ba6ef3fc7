"""MARS-Lion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import pytorch_optimizer
from tests.transforms.test_mars_correction import mars_corrected
from tests.twins.base import Array, Scalar, at, double, phase, steps


def mars_lion(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.95,
    gamma: Scalar = 0.025,
    max_norm: Scalar | None = 1.0,
    matrices_only: bool = False,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Yuan et al., 2024, "MARS", algorithm 3, with the gradient of the batch before."""
    p = double(p)
    m = np.zeros_like(p)
    before = np.zeros_like(p)
    for t, g in steps(grads):
        beta1 = at(b1, t)
        c = g
        if p.ndim == 2 or not matrices_only:
            c = mars_corrected(g, before, at(gamma, t), beta1, max_norm, t)
        before = g
        m = beta1 * m + (1 - beta1) * c
        p = p - at(learning_rate, t) * (phase(m) + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("mars_lion", rate_for_descent=2.0**-6),
    transform("scale_by_mars_lion", core_of(mars_lion), matrices_only=True),
]

ROWS = (
    pytorch_optimizer(
        "mars-lion",
        "MARS(0.01, weight_decay=0.1, mars_type='lion', optimize_1d=True)",
        "mars_lion(0.01, weight_decay=0.1)",
    ),
)
