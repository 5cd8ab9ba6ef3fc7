"""Norms of matrices and of their updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.matrix_problem import close_to_golden
from tests.laws.case import transform
from tests.twins.base import Array, double, steps


def norm_floor(
    p: Array, grads: Iterable[Array], *, floor: float, per: str
) -> Iterator[Array]:
    """The floors of the NanoGPT speedruns."""
    p = double(p)
    for _, g in steps(grads):
        u, size = g, max(np.linalg.norm(g), floor * np.linalg.norm(p))
        if per == "output" and p.ndim > 1:
            own, least = np.linalg.norm(u, axis=0), floor * np.linalg.norm(p, axis=0)
            safe = np.where(own > 0, own, 1)
            u = u * np.maximum(1, least / safe)
        norm = np.linalg.norm(u)
        yield u * (size / norm if norm else 0.0)


CASES = [transform("norm_floor", floor=0.35, per="output")]

WITHOUT_ROW = {
    "match_rms": "the frame of norm_floor; tested with adamuon",
    "relative_norm": "a golden trajectory, and the frame of norm_floor",
    "radial_brake": "a golden trajectory, and the frame of norm_floor",
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
