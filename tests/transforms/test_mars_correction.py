"""The correction of MARS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import transform
from tests.twins.base import Array, Scalar, at, double, steps


def mars_corrected(
    g: Array,
    before: Array,
    gamma: float,
    b1: float,
    max_norm: Scalar | None,
    t: int,
) -> Array:
    """The paper's equation 3.1, and the clipping after it."""
    c = g + gamma * (b1 / (1 - b1)) * (g - before)
    norm = np.sqrt(np.sum(np.abs(c) ** 2))
    if max_norm is not None and norm > at(max_norm, t):
        c = c * at(max_norm, t) / norm
    return c


def mars_correction(
    p: Array,
    grads: Iterable[Array],
    *,
    gamma: Scalar = 0.025,
    b1: Scalar = 0.95,
    max_norm: Scalar | None = 1.0,
) -> Iterator[Array]:
    """Yuan et al., 2024, "MARS", equation 3.1, with the batch before."""
    before = np.zeros_like(double(p))
    for t, g in steps(grads):
        yield mars_corrected(g, before, at(gamma, t), at(b1, t), max_norm, t)
        before = g


CASES = [
    transform("mars_correction", gamma=0.1),
]
