"""Rprop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import train
from tests.laws.case import Case
from tests.parity.row import torch
from tests.twins.base import Array, Scalar, at, double, steps


def rprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: float,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> Iterator[Array]:
    """Riedmiller & Braun, 1993, "A direct adaptive method for faster backpropagation".

    In the form iRprop- of Igel & Hüsken, 2000: where the sign changes there is no step,
    and the next step does not look back at it.
    """
    p = double(p)
    s = np.full(p.shape, learning_rate)
    before = np.zeros(p.shape)
    for t, g in steps(grads):
        product = np.sign(g) * before
        s = np.where(product > 0, s * at(eta_plus, t), s)
        s = np.where(product < 0, s * at(eta_minus, t), s)
        s = np.minimum(np.maximum(s, at(min_step_size, t)), at(max_step_size, t))
        g = np.where(product < 0, 0.0, g)
        p = p - s * np.sign(g)
        before = np.sign(g)
        yield p


def scale_by_rprop(p: Array, grads: Iterable[Array], **options: Any) -> Iterator[Array]:
    """Riedmiller & Braun, 1993, "A direct adaptive method for faster backpropagation".

    The steps of `rprop`, which do not depend on the parameters.
    """
    before = np.zeros_like(double(p))
    for after in rprop(before, grads, **options):
        yield before - after
        before = after


CASES = [
    Case("rprop", complex_leaves=False),
    Case(
        "scale_by_rprop",
        {"learning_rate": 0.01},
        learning_rate=None,
        complex_leaves=False,
    ),
]

ROWS = (
    torch("rprop", "Rprop(lr=0.01)", "rprop(0.01)"),
    torch(
        "rprop-limits",
        "Rprop(lr=0.01, etas=(0.3, 1.5), step_sizes=(2e-3, 0.02))",
        "rprop(0.01, 0.3, 1.5, 2e-3, 0.02)",
    ),
)


def test_the_signs_of_tiny_gradients_count_for_rprop() -> None:
    # The product of two of them would be zero, as for torch and optax.
    tiny = jnp.array([1e-30])
    (params, _) = train(jopt.rprop(1.0), jnp.zeros(1), [tiny, tiny, -tiny, -tiny])
    np.testing.assert_allclose(params, -1.0 - 1.2 - 0.0 + 0.6, rtol=1e-6)
