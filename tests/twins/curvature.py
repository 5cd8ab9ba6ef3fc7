"""Curvature: Sophia."""

from collections.abc import Iterable, Iterator

import numpy as np

from .base import Array, Scalar, at, double, steps


def sophia(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    diagonal: Array,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-15,
    weight_decay: Scalar = 1e-4,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar = 1.0,
    update_interval: int = 10,
) -> Iterator[Array]:
    """Liu et al., 2023, "Sophia", algorithm 3, for a loss with a diagonal Hessian."""
    p = double(p)
    m, h = np.zeros_like(p), np.zeros_like(p)
    for t, g in steps(grads):
        m = at(b1, t) * m + (1 - at(b1, t)) * g
        if t % update_interval == 1 % update_interval:
            h = at(b2, t) * h + (1 - at(b2, t)) * diagonal
        rho = at(clip_threshold, t)
        u = np.clip(m / np.maximum(at(gamma, t) * h, at(eps, t)), -rho, rho)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p
