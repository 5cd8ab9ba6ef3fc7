"""Dion2: the rows that are due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.matrix_problem import POLAR_EXPRESS, close_to_golden
from tests.algorithms.test_adam import adamw
from tests.algorithms.test_muon import orthogonal
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double, steps


def dion2(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    fraction: float,
    ef_decay: Scalar = 0.95,
    ns_coeffs: str,
    weight_decay: Scalar = 0.01,
    adam_learning_rate: Scalar,
) -> Iterator[Array]:
    """Ahn et al., 2025, "Dion2: a simple method to shrink matrix in Muon"."""
    p = double(p)
    if p.ndim < 2:
        yield from adamw(
            p, grads, learning_rate=adam_learning_rate, b2=0.95, weight_decay=0.0
        )
        return
    inputs, outputs = p.shape
    buffer = np.zeros_like(p)
    for t, g in steps(grads):
        buffer = buffer + g
        rows = buffer.T if outputs <= inputs else buffer
        count = max(1, math.ceil(fraction * len(rows)))
        sums = np.sum(np.abs(rows), axis=1)
        chosen = np.argsort(-sums, kind="stable")[:count]
        u = np.zeros_like(rows)
        u[chosen] = orthogonal(rows[chosen], ns_coeffs) * math.sqrt(outputs / inputs)
        rows = rows.copy()
        rows[chosen] *= at(ef_decay, t)
        buffer, u = (rows.T, u.T) if outputs <= inputs else (rows, u)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case(
        "dion2",
        {"fraction": 0.5, "ns_coeffs": "simple", "adam_learning_rate": 0.02},
        moves_without_gradient=True,
    )
]

WITHOUT_ROW = {"scale_by_dion2": "for matrices only; a part of dion2"}


def test_trajectories_are_those_of_the_authors() -> None:
    close_to_golden("dion2", jopt.dion2(0.02, 0.5, ns_coeffs=POLAR_EXPRESS))


def test_a_stack_is_treated_matrix_by_matrix() -> None:
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(3, 5, 8)), jnp.float32)
    tx = jopt.scale_by_dion2(0.4, axes="bio")
    u, state = tx.update(g, tx.init(g))
    one = jopt.scale_by_dion2(0.4)
    for i in range(3):
        expected, its = one.update(g[i], one.init(g[i]))
        np.testing.assert_allclose(u[i], expected, atol=1e-5)
        np.testing.assert_allclose(state.mu[i], its.mu, rtol=1e-6)
        assert np.count_nonzero(np.any(u[i] != 0, axis=1)) == 2  # of 5 rows


def test_what_is_not_used_is_kept() -> None:
    g, tx = jnp.diag(jnp.array([1.0, 0.9, 0.8, 0.7])), jopt.scale_by_dion2(0.25, 0.0)
    state, order = tx.init(g), []
    for _ in range(4):
        u, state = tx.update(g, state)
        order.append(int(jnp.argmax(jnp.diag(u))))
    assert order[:2] == [0, 1]
    assert sorted(order[:3]) == [0, 1, 2]
