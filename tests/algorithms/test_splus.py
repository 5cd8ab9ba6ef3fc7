"""SPlus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.eigen_problem import GOLDEN, RUNS, SHOWN, decomposing, ours
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double, steps


def splus(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    weight_decay: Scalar = 0.01,
    **_: Any,
) -> Iterator[Array]:
    """Frans et al., 2025, for leaves that are not rotated."""
    p, mu = double(p), 0.0
    for t, g in steps(grads):
        mu = at(b1, t) * mu + (1 - at(b1, t)) * g
        rate = 0.001 * at(learning_rate, t)
        p = (p - rate * np.sign(mu)) * (1 - rate * at(weight_decay, t))
        yield p


@dataclass(frozen=True)
class Rotated(Case):
    """A case whose signs float32 does not know: its gradients are ill-conditioned."""

    has_twin = False


OPTIONS: Any = {"weight_decay": 0.1}
CASES = [
    Case(
        "splus",
        {**OPTIONS, "max_dim": 1},
        complex_leaves=False,
        learning_rate=1.0,
        rate_for_descent=10.0,
    ),
    Rotated(
        "splus",
        {**OPTIONS, "precondition_frequency": 3, "staggered": False},
        complex_leaves=False,
        rate_for_descent=10.0,
    ),
]

WITHOUT_ROW = {
    "splus": "equal to the authors' recorded run",
    "scale_by_splus": "its twin is that of splus",
}


def test_forty_steps_are_those_of_the_authors() -> None:
    with np.load(GOLDEN) as golden:
        expected = golden["splus"]
    np.testing.assert_allclose(ours(RUNS["splus"])[SHOWN], expected, 1e-9, 1e-9)


def test_only_steps_that_are_due_decompose() -> None:
    outside, inside, _ = decomposing(jopt.splus(0.1), {"w": jnp.ones((4, 6))})
    assert not outside and inside == {"eigh"}


def test_the_average_is_what_to_evaluate_with() -> None:
    tx, params = jopt.splus(1.0, ema_decay=0.5), {"w": jnp.eye(2), "b": jnp.ones(2)}
    state, seen = tx.init(params), []
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        params = jopt.apply_updates(params, updates)
        seen.append(params)
    weights = np.array([1, 2, 4]) / 7
    expected = sum(w * np.asarray(p["w"]) for w, p in zip(weights, seen, strict=True))
    found = jopt.eval_params(tx, state, params)
    chex.assert_trees_all_close(found["w"], jnp.asarray(expected), rtol=1e-5)


def test_a_mask_keeps_leaves_from_decay_only() -> None:
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    zero = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    tx = jopt.splus(1.0, weight_decay=0.5, weight_decay_mask="w")
    u = tx.update(zero, tx.init(params), params)[0]
    chex.assert_trees_all_close(u, {"w": jnp.full((2, 2), -0.25), "b": jnp.zeros(2)})
    u = tx.update(params, tx.init(params), params)[0]
    assert (u["b"] < 0).all()
