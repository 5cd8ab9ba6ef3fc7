"""Hyperball: norms stay, and the learning rate is the ratio of update and matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.matrix_problem import close_to_golden
from tests.algorithms.test_adam import adamw
from tests.algorithms.test_muon import orthogonal
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double, steps


def muon_h(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    adam_learning_rate: Scalar,
    beta: Scalar = 0.95,
    nesterov: bool = True,
) -> Iterator[Array]:
    """Wen et al., 2026, "Hyperball optimization"."""
    p = double(p)
    if p.ndim < 2:
        yield from adamw(
            p,
            grads,
            learning_rate=adam_learning_rate,
            b1=0.8,
            b2=0.95,
            weight_decay=0.0,
        )
        return
    radius = np.linalg.norm(p)
    buffer = np.zeros_like(p)
    for t, g in steps(grads):
        b = at(beta, t)
        buffer = b * buffer + (1 - b) * g
        o = orthogonal(
            b * buffer + (1 - b) * g if nesterov else buffer, "newton_schulz"
        )
        size = np.linalg.norm(o)
        p = p - at(learning_rate, t) * radius * (o / size if size else o)
        p = p * (radius / np.linalg.norm(p))
        yield p


CASES = [Case("muon_h", {"adam_learning_rate": 0.02})]

WITHOUT_ROW = {
    "adam_h": "muon_h with the direction of scale_by_adam; a golden trajectory",
    "soap_h": "hyperball around scale_by_soap, which is equal to its authors' code",
    "hyperball": "around a direction; what muon_h and adam_h are made of",
    "scale_by_hyperball": "the last member of hyperball",
}


@pytest.mark.parametrize(
    ("name", "tx"),
    [
        ("muon_h", jopt.muon_h(0.018)),
        ("adam_h", jopt.adam_h(0.005)),
        (
            "muon_hyperball",
            jopt.hyperball(jopt.scale_by_muon("quintic", nesterov=False), 0.02),
        ),
    ],
)
def test_trajectories_are_those_of_the_authors(name: str, tx: Any) -> None:
    close_to_golden(name, tx)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 3e-3)])
def test_norms_stay_over_many_steps(dtype: str, error: float) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(2, 8, 12))
    params = {"kernel": jnp.asarray(w, dtype), "bias": jnp.zeros(12, dtype)}
    tx = jopt.muon_h(0.02, axes=jopt.rules(("", "bio")))
    before = np.linalg.norm(np.asarray(params["kernel"], np.float64), axis=(1, 2))
    state = tx.init(params)
    for t in range(12):
        grads = jax.tree.map(lambda p, t=t: jnp.sin(3 * p + t), params)
        params, state = jopt.step(tx, grads, state, params)
    after = np.linalg.norm(np.asarray(params["kernel"], np.float64), axis=(1, 2))
    assert np.max(np.abs(after / before - 1)) < error  # of both matrices of the stack


def test_the_learning_rate_is_the_ratio_of_update_and_matrix() -> None:
    params = jnp.asarray(np.random.default_rng(0).normal(size=(30, 20)), jnp.float32)
    tx = jopt.scale_by_hyperball(0.01)
    updates, _ = tx.update(1e6 * jnp.cos(params), tx.init(params), params)
    ratio = jnp.linalg.norm(updates) / jnp.linalg.norm(params)
    np.testing.assert_allclose(ratio, 0.01, rtol=0.01)  # nearly on the sphere


def test_a_matrix_that_starts_at_zero_grows_to_the_radius_and_stays() -> None:
    params, tx = jnp.zeros((9, 16)), jopt.scale_by_hyperball(0.1)
    state, grads = tx.init(params), jnp.ones((9, 16))
    np.testing.assert_array_equal(state.radius, [[4.0]])
    found = []
    for _ in range(14):
        params, state = jopt.step(tx, grads, state, params)
        found.append(float(jnp.linalg.norm(params)))
    np.testing.assert_allclose(found[:9], 0.4 * np.arange(1, 10), rtol=1e-5)
    np.testing.assert_allclose(found[10:], 4.0, rtol=3e-6)


def test_zero_updates_leave_matrices_where_they_are() -> None:
    params = {"w": jnp.eye(3), "zero": jnp.zeros((2, 3)), "none": None}
    tx = jopt.scale_by_hyperball(0.1)
    grads = jax.tree.map(jnp.zeros_like, params)
    after, _ = jopt.step(tx, grads, tx.init(params), params)
    assert after["none"] is None
    np.testing.assert_array_equal(after["w"], params["w"])
    np.testing.assert_array_equal(after["zero"], params["zero"])


def test_nothing_may_change_the_updates_after_it() -> None:
    with pytest.raises(ValueError, match=r"Put scale_by_hyperball after 'add_decayed"):
        jopt.chain(jopt.muon_h(0.02), jopt.add_decayed_weights(0.1))
    jopt.chain(jopt.muon_h(0.02), jopt.params_ema(0.9))


def test_soap_h_turns_matrices_by_soaps_direction() -> None:
    rng = np.random.default_rng(0)
    w, options = rng.normal(size=(6, 4)), {"b2": 0.9, "precondition_frequency": 1}
    params, tx = {"w": jnp.float32(w)}, jopt.soap_h(0.1)
    soap = jopt.scale_by_soap(**options, bias_correction=False)
    state, soap_state = tx.init(params), soap.init(params)
    for t in range(4):
        grads = {"w": jnp.float32(rng.normal(size=(6, 4)))}
        direction, soap_state = soap.update(grads, soap_state)
        u = np.asarray(direction["w"], np.float64)
        if t:
            w = w - 0.1 * np.linalg.norm(w) * u / np.linalg.norm(u)
            w *= np.linalg.norm(params["w"]) / np.linalg.norm(w)
        params, state = jopt.step(tx, grads, state, params)
        np.testing.assert_allclose(params["w"], w, rtol=2e-5, atol=1e-6)
