"""KL-Shampoo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.eigen_problem import GOLDEN, RUNS, SHOWN, decomposing, ours
from tests.algorithms.test_adam import adamw
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double, steps


def kl_shampoo(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    adam_learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.98,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.01,
    precondition_frequency: int = 10,
    **_: Any,
) -> Iterator[Array]:
    """Lin et al., 2025, with the side of the rows only, and adamw for vectors."""
    p = double(p)
    if p.ndim < 2:
        options: Any = {"b1": 0.9, "b2": 0.95, "weight_decay": 0.0}
        yield from adamw(p, grads, learning_rate=adam_learning_rate, **options)
        return
    m, n = p.shape
    q, s, e = np.eye(m), np.zeros((m, m)), np.full(m, 0.1)
    mu = np.zeros_like(p)
    for t, g in steps(grads):
        beta = at(b2, t)
        if t > 1:
            mu = at(b1, t) * mu + (1 - at(b1, t)) * g
            scale = (1 / np.sqrt(e))[:, None]
            u = q @ (q.T @ mu * scale / (1 + at(eps, t) * scale))
            p = p - at(learning_rate, t) * u
            p = p * (1 - at(learning_rate, t) * at(weight_decay, t))
            new = beta * e + (1 - beta) * np.mean((q.T @ g) ** 2, axis=1)
            e = np.maximum(new, 0.01)
        s = beta * s + (1 - beta) * g @ g.T / n
        if t == 1:
            q = np.linalg.eigh(s)[1][:, ::-1]
        elif (t - 1) % precondition_frequency == 0:
            q = np.linalg.qr(s @ q)[0]
        yield p


CASES = [
    Case(
        "kl_shampoo",
        {
            "precondition_frequency": 3,
            "staggered": False,
            "weight_decay": 0.1,
            "sides": "smaller",
            "adam_learning_rate": 0.02,
        },
        complex_leaves=False,
    ),
]

WITHOUT_ROW = {
    "kl_shampoo": "equal to the authors' recorded runs",
    "scale_by_kl_shampoo": "its twin is that of kl_shampoo",
}


@pytest.mark.parametrize("name", [n for n in RUNS if n.startswith("kl-shampoo")])
def test_forty_steps_are_those_of_the_authors(name: str) -> None:
    with np.load(GOLDEN) as golden:
        expected = golden[name]
    np.testing.assert_allclose(ours(RUNS[name])[SHOWN], expected, 1e-9, 1e-9)


def test_only_steps_that_are_due_decompose() -> None:
    outside, inside, _ = decomposing(jopt.kl_shampoo(0.1), {"w": jnp.ones((4, 6))})
    assert not outside and inside == {"eigh", "qr"}
