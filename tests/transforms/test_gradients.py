"""Gradients as they are, centralized, frozen, by sign, or in the ratio of norms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import times, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def centralize(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """Yong et al., 2020, "Gradient centralization", equation 1.

    The mean over all axes but the first is taken off; scalars and vectors pass.
    """
    for _, g in steps(grads):
        if g.ndim > 1 and g.size > 0:
            g = g - np.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True)
        yield g


def zero_nans(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """No paper: NaN becomes zero, infinities stay."""
    for _, g in steps(grads):
        yield np.where(np.isnan(g), 0.0, g)


def scale_by_sign(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """Bernstein et al., 2018, "signSGD: compressed optimisation", algorithm 1."""
    for _, g in steps(grads):
        yield np.sign(g)


def scale_by_trust_ratio(
    p: Array,
    grads: Iterable[Array],
    *,
    min_norm: Scalar = 0.0,
    trust_coefficient: Scalar = 1.0,
    eps: Scalar = 0.0,
) -> Iterator[Array]:
    """You, Gitman & Ginsburg, 2017, "Large batch training of convolutional networks".

    Where the parameters or the update have norm zero, the update passes unscaled.
    """
    p = double(p)
    for t, g in steps(grads):
        p_norm = max(np.sqrt(np.sum(np.abs(p) ** 2)), at(min_norm, t))
        g_norm = max(np.sqrt(np.sum(np.abs(g) ** 2)), at(min_norm, t))
        if p_norm == 0 or g_norm == 0:
            yield g
        else:
            yield g * (at(trust_coefficient, t) * p_norm / (g_norm + at(eps, t)))


CASES = [
    transform("centralize"),
    transform("identity", times(1.0)),
    transform("scale_by_sign"),
    transform("scale_by_trust_ratio"),
    # Integers may be frozen.
    replace(transform("set_to_zero", times(0.0)), integer_leaves=True),
    transform("zero_nans"),
    replace(transform("freeze", times(0.0), mask=True), integer_leaves=True),
]

WITHOUT_ROW = {
    "stateless": "is what its function is",
    "stateless_with_tree_map": "is what its function is",
}

ROWS = (
    optax("centralize", "chain(centralize(), sgd(0.05))"),
    optax("sign", "chain(scale_by_sign(), scale(-0.01))"),
    optax(
        "trust-ratio",
        "chain(scale_by_adam(), scale_by_trust_ratio(), scale(-0.01))",
    ),
    optax(
        "trust-ratio-options",
        "chain(scale_by_trust_ratio(0.01, 0.1, 1e-3), scale(-0.5))",
    ),
    optax(
        "stateless-with-tree-map",
        "stateless_with_tree_map(lambda g, p: -0.05 * (g + 0.1 * p))",
    ),
)


def test_stateless_with_tree_map_sees_each_leaf_with_its_parameter() -> None:
    tx = jopt.stateless_with_tree_map(lambda g, p: g if p is None else g + p)
    grads = {"a": jnp.ones(2, jnp.bfloat16), "b": None, "c": jnp.ones(())}
    updates, state = tx.update(grads, tx.init(grads), grads)
    doubled = {"a": jnp.full(2, 2.0, jnp.bfloat16), "b": None, "c": jnp.full((), 2.0)}
    chex.assert_trees_all_equal(updates, doubled)
    chex.assert_trees_all_equal(tx.update(grads, state)[0], grads)
    with pytest.raises(ValueError, match="leaf 'a'"):
        tx.update(grads, state, {**grads, "a": jnp.ones(3)})


def test_stateless_gets_updates_and_params() -> None:
    tx = jopt.stateless(lambda updates, params: (updates, params))
    assert tx.update(1.0, (), 2.0) == ((1.0, 2.0), ())
    assert tx.update(1.0, ()) == ((1.0, None), ())
    assert jopt.chain(tx).init(jnp.ones(1)) == {}


def test_zero_nans_keeps_infinities() -> None:
    grads = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0])
    updates, _ = jopt.zero_nans().update(grads, ())
    chex.assert_trees_all_equal(updates, jnp.array([0.0, jnp.inf, -jnp.inf, 1.0]))
