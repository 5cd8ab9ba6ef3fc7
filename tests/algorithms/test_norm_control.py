"""Norms of matrices and of their updates."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.matrix_problem import close_to_golden


WITHOUT_ROW = {
    "norm_floor": "a golden trajectory, and a formula by hand for outputs",
    "match_rms": "tested with adamuon",
    "relative_norm": "a golden trajectory, as for norm_floor",
    "radial_brake": "a golden trajectory, as for norm_floor",
}


@pytest.mark.parametrize(
    ("name", "tx", "leaves"),
    [
        (
            "muon_relative",
            jopt.chain(
                jopt.scale_by_muon("quintic", nesterov=False),
                jopt.relative_norm(),
                jopt.scale_by_learning_rate(0.02),
            ),
            None,
        ),
        (
            "muon_brake",
            jopt.chain(
                jopt.scale_by_muon(
                    "quintic", nesterov=False, shape_scale="match_rms_adamw"
                ),
                jopt.scale(5.0),
                jopt.scale_by_learning_rate(0.05),
                jopt.radial_brake(0.5, 0.75),
            ),
            None,
        ),
        # The record takes the second moment of the longer side, ours of the outputs.
        (
            "norm_floor",
            jopt.chain(
                jopt.scale_by_muon("newton_schulz", shape_scale="kj"),
                jopt.normalize_neurons(),
                jopt.norm_floor(),
                jopt.scale_by_learning_rate(0.0375),
            ),
            ("wide", "square"),
        ),
    ],
)
def test_trajectories_are_those_of_the_authors(name: str, tx: Any, leaves: Any) -> None:
    close_to_golden(name, tx, leaves)


def test_the_floor_of_outputs_keeps_the_size_of_the_floor_of_matrices() -> None:
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 5, 4))
    g = g * np.array([1e-3, 0.1, 1.0, 0.0])  # by outputs
    own, least = np.linalg.norm(g, axis=0), 0.35 * np.linalg.norm(w, axis=0)
    u = g * np.maximum(1, least / np.where(own > 0, own, 1))
    size = max(np.linalg.norm(g), 0.35 * np.linalg.norm(w))
    tx = jopt.norm_floor(0.35, "output", axes="bio")
    p, stack = (jnp.asarray(np.stack([x, 3 * x]), jnp.float32) for x in (w, g))
    found, _ = tx.update(stack, tx.init(p), p)
    expected = u * size / np.linalg.norm(u)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], 3 * expected, rtol=1e-5)
    low = tx.update(stack.astype(jnp.bfloat16), (), p.astype(jnp.bfloat16))[0]
    np.testing.assert_allclose(low.astype(jnp.float32), found, rtol=0.02, atol=1e-3)


def test_ratios_are_right_where_something_is_zero() -> None:
    zero, one = jnp.zeros((2, 2)), jnp.eye(2)
    for tx in (jopt.relative_norm(), jopt.norm_floor(), jopt.radial_brake()):
        for u, p in ((zero, one), (zero, zero)):
            np.testing.assert_array_equal(tx.update(u, tx.init(p), p)[0], 0)
    np.testing.assert_array_equal(jopt.relative_norm().update(one, (), zero)[0], 0)
    np.testing.assert_array_equal(jopt.norm_floor().update(one, (), zero)[0], one)


def test_a_part_of_one_is_no_brake() -> None:
    p = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    tx = jopt.radial_brake(1.0, 1.0)
    np.testing.assert_array_equal(tx.update(p, tx.init(p), p)[0], p)
