"""CAME."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

import jopt
from tests.algorithms.runs import assert_follows, common_direction
from tests.laws.case import Case, core_of
from tests.parity.row import torch_like
from tests.twins.base import Array, Factored, Scalar, at, double, rms, steps


def came(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    eps1: Scalar = 1e-30,
    eps2: Scalar = 1e-16,
    clipping_threshold: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Luo et al., 2023, "CAME: confidence-guided adaptive memory efficient ..."."""
    p = double(p)
    v, instability = Factored(p.ndim), Factored(p.ndim)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        u = g / np.sqrt(v.average(at(b2, t), g**2 + at(eps1, t)))
        u = u / max(1.0, rms(u) / at(clipping_threshold, t))
        m = at(b1, t) * m + (1 - at(b1, t)) * u
        direction = m
        if p.ndim >= 2:
            difference = (u - m) ** 2 + at(eps2, t)
            direction = m / np.sqrt(instability.average(at(b3, t), difference))
        p = p - at(learning_rate, t) * (direction + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("came", {"b3": 0.99, "weight_decay": 0.1}, complex_leaves=False),
    Case(
        "scale_by_came",
        {"b2": 0.9, "b3": 0.99},
        None,
        core_of(came),
        complex_leaves=False,
        part=True,
    ),
]

ROWS = (
    # Its first instabilities are rounding errors, in float32 different ones.
    torch_like(
        "came_pytorch",
        "came",
        "CAME(lr=0.01)",
        "came(0.01)",
        package="came-pytorch",
        tol32=1e-5,
    ),
    torch_like(
        "came_pytorch",
        "came-options",
        "CAME(lr=0.01, eps=(1e-8, 1e-4), clip_threshold=0.5, betas=(0.8, 0.9, 0.99), "
        "weight_decay=0.1)",
        "came(0.01, 0.8, 0.9, 0.99, 1e-8, 1e-4, 0.5, weight_decay=0.1)",
        package="came-pytorch",
    ),
    torch_like(
        "came_pytorch",
        "came-schedule",
        "CAME(lr=0.05)",
        "came(DECAY)",
        package="came-pytorch",
    ),
)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 5), (6, 1)])
def test_came_factors_the_last_two_axes(shape: tuple[int, ...]) -> None:
    p, grads = common_direction(shape)
    options = {"b2": 0.9, "b3": 0.8, "eps1": 1e-10, "eps2": 1e-8}
    twin = came(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.came(0.1, **options), twin, p, grads)
