"""Normalization by the norms of updates and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import random_matrices
from tests.laws.case import Case, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, Tree, at, double, l2_norm, steps


def normalize(p: Tree, grads: Iterable[Tree]) -> Iterator[Tree]:
    """Hazan, Levy & Shalev-Shwartz, 2015, "Beyond convexity", algorithm 1."""
    yield from normalize_by_update_norm(p, grads, eps=0.0)


def normalize_by_update_norm(
    p: Tree,
    grads: Iterable[Tree],
    *,
    scale_factor: Scalar = 1.0,
    eps: Scalar = 1e-6,
) -> Iterator[Tree]:
    """All arrays of a dict together get one norm, ``scale_factor``."""
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        norm = np.sqrt(sum(l2_norm(x) ** 2 for x in g.values()))
        factor = at(scale_factor, t) / (norm + at(eps, t))
        yield {name: factor * x for name, x in g.items()}


def scale_by_param_block_norm(
    p: Array, grads: Iterable[Array], *, min_scale: Scalar = 1e-3
) -> Iterator[Array]:
    """No paper: the size of the parameters is the size of their learning rate."""
    p = double(p)
    for t, g in steps(grads):
        yield g * max(l2_norm(p), at(min_scale, t))


def scale_by_param_block_rms(
    p: Array, grads: Iterable[Array], *, min_scale: Scalar = 1e-3
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", section 8 (relative step size)."""
    p = double(p)
    for t, g in steps(grads):
        rms = np.sqrt(np.mean(np.abs(p) ** 2)) if p.size else 0.0
        yield g * max(rms, at(min_scale, t))


def of_all_leaves(name: str, **options: object) -> Case:
    return Case(name, options, learning_rate=None, looks_at_all_leaves=True)


CASES = [
    of_all_leaves("normalize"),
    of_all_leaves("normalize_by_update_norm", scale_factor=-2.0),
    transform("scale_by_param_block_rms"),
]

WITHOUT_ROW = {
    "scale_by_param_block_norm": "leaves float16",
}

ROWS = (
    optax("normalize", "chain(normalize(), scale(-0.05))"),
    optax("normalize-by-update-norm", "normalize_by_update_norm(-0.05, 0.01)"),
    optax("param-block-norm", "chain(scale_by_param_block_norm(), scale(-0.05))"),
    optax("param-block-rms", "chain(scale_by_param_block_rms(2.0), scale(-0.05))"),
)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize(
    "tx", [jopt.normalize(), jopt.normalize_by_update_norm()], ids=repr
)
def test_a_norm_that_is_not_finite_makes_every_update_nan(tx: Any, bad: float) -> None:
    grads = {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}
    updates, _ = tx.update(grads, tx.init(grads))
    assert all(jnp.isnan(u).all() for u in jax.tree.leaves(updates))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_scale_by_param_block_norm_multiplies_by_the_norm_of_each_leaf(
    dtype: str,
) -> None:
    params = {"a": jnp.full((2, 2), 3.0, dtype), "b": jnp.zeros(3, dtype), "c": None}
    grads = {"a": jnp.ones((2, 2), dtype), "b": jnp.ones(3, dtype), "c": None}
    tx = jopt.scale_by_param_block_norm(0.5)
    updates, state = tx.update(grads, tx.init(params), params)
    expected = {
        "a": jnp.full((2, 2), 6.0, dtype),
        "b": jnp.full(3, 0.5, dtype),
        "c": None,
    }
    chex.assert_trees_all_equal(updates, expected)
    assert state == ()
    with pytest.raises(TypeError, match="needs the parameters"):
        tx.update(grads, state)


def test_scale_by_param_block_norm_equals_its_twin() -> None:
    params, grads = random_matrices(2)
    tx = jopt.scale_by_param_block_norm()
    twin = scale_by_param_block_norm(params, [np.asarray(g) for g in grads])
    for g, expected in zip(grads, twin, strict=True):
        found, _ = tx.update(g, (), params)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
