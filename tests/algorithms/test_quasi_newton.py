"""The two loops of L-BFGS are the textbook's, on trees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.algorithms.quasi_newton import (
    inverse_curvature,
    inverse_hessian_times,
    no_pairs,
    remember,
)


def tree_of(vector: np.ndarray) -> Any:
    """A tree with a real, a complex and an absent leaf."""
    real, imag = vector[3:5], vector[5:7]
    return {"a": jnp.asarray(vector[:3]), "b": None, "c": jnp.asarray(real + 1j * imag)}


def vector_of(tree: Any) -> np.ndarray:
    return np.concatenate([tree["a"], tree["c"].real, tree["c"].imag])


def two_loops(pairs: list[Any], scale: float, g: np.ndarray) -> np.ndarray:
    """Nocedal and Wright, algorithm 7.4."""
    q, alphas = g.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    r = scale * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - y @ r / (s @ y))
    return r


@pytest.mark.parametrize("memory_size", [1, 4])
def test_the_product_is_that_of_the_textbook(memory_size):
    rng = np.random.default_rng(0)
    hessian = np.diag(np.geomspace(1e-2, 1e2, 7))
    kept = []
    with jax.enable_x64(True):
        add, times = jax.jit(remember), jax.jit(inverse_hessian_times)
        pairs = no_pairs(memory_size, tree_of(np.zeros(7)))
        for k in range(7):
            s, g = rng.normal(size=(2, 7))
            y = hessian @ s if k != 3 else -s  # the fourth has negative curvature
            if k != 3:
                kept.append((s, y))
            pairs, stored = add(pairs, tree_of(s), tree_of(y))
            assert bool(stored) == (k != 3) and int(pairs.count) == len(kept)
            scale = s @ y / (y @ y)
            got = inverse_curvature(tree_of(s), tree_of(y))
            np.testing.assert_allclose(got, scale, rtol=1e-14)
            expected = two_loops(kept[-memory_size:], 0.3, g)
            got = vector_of(times(pairs, jnp.float64(0.3), tree_of(g)))
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_pairs_that_say_nothing_are_left_out():
    add = jax.jit(remember)
    pairs = no_pairs(2, jnp.zeros(2))
    one = jnp.array([1.0, 0.0])
    for change in (0 * one, -one, jnp.array([1e-9, 1.0]), 1e-39 * one, np.nan * one):
        new, stored = add(pairs, one, change)
        assert not stored and not new.weights.any() and not new.changes.any()
    assert not add(pairs, one, one, unless=True)[1]
    assert add(pairs, 1e-15 * one, 1e-15 * one)[1]
