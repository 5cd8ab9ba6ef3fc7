"""Shampoo, grafted and not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.algorithms.kronecker import Sides, inverse_root, newton_root
from tests.algorithms.eigen_problem import GOLDEN, RUNS, SHOWN, decomposing, ours
from tests.algorithms.test_adam import adamw
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double, steps


def power(s: Array, exponent: float, eps: float, relative: float) -> Array:
    """``(S + epsilon I)^-exponent``."""
    e, q = np.linalg.eigh(s)
    shift = eps + relative * e[-1] - min(e[0], 0.0)
    return (q * (e + shift) ** -exponent) @ q.T


def shampoo(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    adam_learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    weight_decay: Scalar = 0.0,
    relative_eps: Scalar = 1e-6,
    graft_eps: Scalar = 1e-8,
    start_step: int = 1,
    precondition_frequency: int = 10,
    **_: Any,
) -> Iterator[Array]:
    """Gupta et al., 2018, with p = 4, bias corrections, and the norm of Adam."""
    p = double(p)
    if p.ndim < 2:
        options: Any = {"b1": 0.9, "b2": 0.999, "weight_decay": 0.0}
        yield from adamw(p, grads, learning_rate=adam_learning_rate, **options)
        return
    m, n = p.shape
    left, right = np.eye(m), np.eye(n)
    s_left, s_right = np.zeros((m, m)), np.zeros((n, n))
    mu, nu = np.zeros_like(p), np.zeros_like(p)
    c1 = c2 = 1.0
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        mu = beta1 * mu + (1 - beta1) * g
        nu = beta2 * nu + (1 - beta2) * g**2
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        s_left = beta2 * s_left + (1 - beta2) * g @ g.T
        s_right = beta2 * s_right + (1 - beta2) * g.T @ g
        due = t > start_step and t % precondition_frequency == 0
        if due or t == start_step:
            terms = 0.25, at(eps, t), at(relative_eps, t)
            left, right = power(s_left / c2, *terms), power(s_right / c2, *terms)
        u = (mu / c1) / (np.sqrt(nu / c2) + at(graft_eps, t))
        if t >= start_step:
            direction = left @ mu @ right
            norm = np.linalg.norm(direction)
            u = direction * (np.linalg.norm(u) / norm if norm else 0.0)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case(
        "shampoo",
        {
            "eps": 1.0,
            "weight_decay": 0.1,
            "start_step": 2,
            "precondition_frequency": 3,
            "staggered": False,
            "adam_learning_rate": 0.02,
        },
        complex_leaves=False,
    ),
]

WITHOUT_ROW = {
    "shampoo": "equal to Meta's recorded runs; pytorch_optimizer has that of 2018",
    "scale_by_shampoo": "its twin is that of shampoo",
}


def random(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("name", [n for n in RUNS if n.startswith("shampoo")])
def test_forty_steps_are_those_of_meta(name: str) -> None:
    with np.load(GOLDEN) as golden:
        expected = golden[name]
    error = 1e-5 if "float32" in name else 1e-9  # what is stored is rounded
    np.testing.assert_allclose(ours(RUNS[name])[SHOWN], expected, error, error)


def test_only_steps_that_are_due_decompose() -> None:
    outside, inside, text = decomposing(jopt.shampoo(0.1), {"w": jnp.ones((4, 6))})
    assert not outside and inside == {"eigh"} and "conditional(" in text


def test_a_sum_without_grafting_is_the_paper() -> None:
    options: Any = {"b1": 0.0, "b2": 1.0, "eps": 1e-3, "relative_eps": 0.0}
    tx = jopt.scale_by_shampoo(**options, graft=None, precondition_frequency=1)
    g = random(3, 4)
    u, state = tx.update(g, tx.init(g))
    u, _ = tx.update(g, state)
    left, right = (power(2 * np.asarray(s), 0.25, 1e-3, 0) for s in (g @ g.T, g.T @ g))
    np.testing.assert_allclose(u, left @ np.asarray(g) @ right, rtol=1e-4, atol=1e-4)
    assert state.nu is None


def test_blocks_are_preconditioned_one_by_one() -> None:
    options: Any = {"precondition_frequency": 1, "axes": "io", "block_size": 4}
    tx = jopt.scale_by_shampoo(**options)
    g = random(8, 7)  # 2 blocks of 4 by 2 of 4, of which the last lacks a column
    update = jax.jit(tx.update)
    u, state = update(g, tx.init(g))
    assert [x.shape for x in state.roots] == [(4, 4, 4), (4, 4, 4)]
    for rows in (slice(4), slice(4, 8)):
        for columns in (slice(4), slice(4, 7)):
            alone, _ = update(g[rows, columns], tx.init(g[rows, columns]))
            chex.assert_trees_all_close(u[rows, columns], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", ["io", "bio", "oi", "iio", "obi"])
def test_blocks_come_back_to_their_places(axes: str) -> None:
    shape = (3, 5, 7)[: len(axes)]
    sides = Sides.of(axes, shape, 2, block=2)
    x = random(*shape)
    assert sides.stack(x).shape == sides.dims
    chex.assert_trees_all_equal(sides.leaf(sides.stack(x)), x)


def test_one_side_has_the_root_of_one_side() -> None:
    g, options = random(3, 5), {"graft": None, "b1": 0.0, "precondition_frequency": 1}
    tx = jopt.scale_by_shampoo(**options, sides="smaller", relative_eps=0.0)
    u, _ = tx.update(g, tx.init(g))
    p, _, q = jnp.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(u, p @ q, rtol=1e-3, atol=1e-3)


def test_a_root_that_fails_is_not_used() -> None:
    old = jnp.eye(2)[None]
    bad = jnp.array([[[1.0, jnp.nan], [jnp.nan, 1.0]]])
    chex.assert_trees_all_equal(inverse_root(bad, 0.25, 0.0, 0.0, old), old)
    zero = jnp.zeros((1, 2, 2))
    chex.assert_trees_all_equal(inverse_root(zero, 0.25, 0.0, 0.0, old), zero)
    negative = jnp.diag(jnp.array([-1e-9, 1.0]))[None]
    assert jnp.isfinite(inverse_root(negative, 0.25, 1e-12, 1e-6, old)).all()


def test_a_newton_iteration_needs_whole_roots_and_keeps_one_that_fails() -> None:
    bad, old = jnp.full((1, 2, 2), jnp.nan), jnp.eye(2)[None]
    chex.assert_trees_all_equal(newton_root(bad, 4, 0.0, 0.0, old), old)
    with pytest.raises(TypeError, match="p must be a whole number"):
        jopt.scale_by_shampoo(p=2.5, root_method="newton")
    with pytest.raises(ValueError, match="rank_rtol needs eigenvalues"):
        jopt.scale_by_shampoo(rank_rtol=0.0, root_method="newton")


def test_grafting_gives_the_norm_of_the_other_method() -> None:
    g = {"w": random(3, 4), "b": random(4)}
    for graft, size in [("adam", 1.0), ("rmsprop", 0.1**-0.5)]:
        tx = jopt.scale_by_shampoo(b2=0.9, graft=graft, precondition_frequency=1)
        u = jax.jit(tx.update)(g, tx.init(g))[0]
        expected = {name: size * jnp.sign(x) for name, x in g.items()}
        chex.assert_trees_all_close(u["b"], expected["b"], rtol=1e-4)
        norms = jnp.linalg.norm(u["w"]), jnp.linalg.norm(expected["w"])
        chex.assert_trees_all_close(*norms, rtol=1e-4)
