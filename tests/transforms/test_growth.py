"""Bounded growth of norms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import updates_and_state
from tests.laws.case import transform
from tests.twins.base import Array, Scalar, at, steps


def limit_norm_growth(
    p: Array,
    grads: Iterable[Array],
    *,
    max_growth: Scalar = 1.01,
) -> Iterator[Array]:
    """Chen et al., 2024, "Fira", equation 8."""
    before = 0.0
    for t, g in steps(grads):
        norm = np.sqrt(np.sum(np.abs(g) ** 2))
        if before > 0 and norm / before > at(max_growth, t):
            g = g / norm * at(max_growth, t) * before
            norm = at(max_growth, t) * before
        before = norm
        yield g


CASES = [
    transform("limit_norm_growth"),
]


def test_norms_grow_by_the_bound_and_start_again_after_a_zero_gradient() -> None:
    tx = jopt.limit_norm_growth(1.5)
    params = jnp.zeros((2, 2))
    sizes = [1.0, 9.0, 9.0, 0.0, 9.0, 2.0, 9.0]
    updates, state = updates_and_state(tx, params, [jnp.full((2, 2), x) for x in sizes])
    found = [float(u[0, 0]) for u in updates]
    assert found == pytest.approx([1.0, 1.5, 2.25, 0.0, 9.0, 2.0, 3.0])
    assert state.norm.shape == (1, 1)
    for bad in (jnp.inf, jnp.nan):
        u, after = tx.update(jnp.array([[1.0, bad], [1.0, 1.0]]), state)
        assert jnp.all(jnp.isnan(u))
        chex.assert_trees_all_equal(after, state)
