"""Scion: a norm for each kind of layer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.matrix_problem import close_to_golden


WITHOUT_ROW = {
    "scale_by_lmo": "the direction of scion",
    "scion": "ema, scale_by_lmo and a decay; golden trajectories",
}

PER_LEAF = {"wide": "spectral", "tall": "sign", "square": "column"}


@pytest.mark.parametrize(
    ("name", "tx"),
    [
        ("scion", jopt.scion(0.02, radius=5.0, sign_radius=30.0, norms=PER_LEAF)),
        (
            "scion_unconstrained",
            jopt.scion(0.02, radius=1.0, norms="row", constrained=False),
        ),
    ],
)
def test_trajectories_are_those_of_the_authors(name: str, tx: Any) -> None:
    # They add 1e-7 to the norms, of about 0.1, and so to the parameters of each step.
    close_to_golden(name, tx, atol=5e-6)


def test_shape_and_name_choose_the_norm() -> None:
    params = {
        "embed": jnp.ones((3, 4)),
        "hidden": {"kernel": jnp.eye(4), "bias": jnp.ones(4)},
        "head": jnp.ones((4, 2)),
    }
    tx = jopt.scale_by_lmo(1.0, 8.0)
    u, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(u["embed"], 8 / 3)
    np.testing.assert_allclose(u["head"], 2.0)
    np.testing.assert_allclose(u["hidden"]["bias"], 1.0)
    assert 0.6 < float(u["hidden"]["kernel"][0, 0]) < 1.2


def test_a_wrong_norm_is_refused() -> None:
    tx = jopt.scion(0.1, norms="spectrum")
    with pytest.raises(ValueError, match=r"norms must be one of .* got 'spectrum'"):
        tx.init({"w": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match="a matrix needs two"):
        jopt.scion(0.1, norms="spectral").init({"w": jnp.ones(2)})
