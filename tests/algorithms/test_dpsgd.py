"""Private gradients: clipped per example, summed, with noise."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest

import jopt
from jopt.testing.comparison import types


WITHOUT_ROW = {
    "differentially_private_aggregate": "takes gradients per example",
    "dpsgd": "takes gradients per example",
}

RNG = np.random.default_rng(0)
PARAMS = {"b": jnp.zeros(3), "w": jnp.zeros((2, 3))}
SCALES = np.array([3.0, 1e-4, 0.0, 1.0, 1e-6, 10.0])[:, None]
GRADS = {
    "b": jnp.asarray(RNG.normal(size=(6, 3)) * SCALES, jnp.float32),
    "w": jnp.asarray(RNG.normal(size=(6, 2, 3)) * SCALES[..., None], jnp.float32),
}


def test_without_noise_it_is_the_mean_of_clipped_gradients() -> None:
    expected = {"b": np.zeros(3), "w": np.zeros((2, 3))}
    for i in range(6):
        g = {n: np.asarray(x[i], np.float64) for n, x in GRADS.items()}
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        for n, x in g.items():
            expected[n] += x * min(1.0, 0.5 / norm if norm else 1.0) / 6
    tx = jopt.differentially_private_aggregate(0.5, 0.0, key=0)
    found, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.seed. is deprecated")
def test_dpsgd_without_noise_is_optax_and_so_are_the_clips() -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = optax.contrib.dpsgd(0.1, 0.5, 0.0, 0, momentum=0.9, nesterov=True)
        ours = jopt.dpsgd(0.1, 0.5, 0.0, 0, 0.9, True)
        states = [theirs.init(PARAMS), ours.init(PARAMS)]
        for _ in range(3):
            pairs = [
                tx.update(GRADS, s, PARAMS)
                for tx, s in zip((theirs, ours), states, strict=True)
            ]
            states = [s for _, s in pairs]
            chex.assert_trees_all_close(pairs[0][0], pairs[1][0], rtol=1e-6)
        leaves, treedef = jax.tree.flatten(GRADS)
        by_norm, clipped = optax.per_example_global_norm_clip(leaves, 0.5)
        sums, count = jopt.per_example_global_norm_clip(GRADS, 0.5)
        chex.assert_trees_all_close(sums, treedef.unflatten(by_norm), rtol=1e-6)
        assert int(count) == int(clipped)
        for uniform in (True, False):
            by_layer, clipped = optax.per_example_layer_norm_clip(leaves, 0.5, uniform)
            sums, count = jopt.per_example_layer_norm_clip(GRADS, 0.5, uniform)
            chex.assert_trees_all_close(sums, treedef.unflatten(by_layer), rtol=1e-6)
            chex.assert_trees_all_equal(count, treedef.unflatten(clipped))


def test_the_noise_has_the_deviation_that_is_asked_for() -> None:
    params = {"w": jnp.zeros(200_000)}
    tx = jopt.differentially_private_aggregate(2.0, 1.5, key=1)
    zero = {"w": jnp.zeros((4, 200_000))}
    first, state = tx.update(zero, tx.init(params), params)
    second, _ = tx.update(zero, state, params)
    for u in (first["w"], second["w"]):
        assert float(jnp.std(u)) == pytest.approx(2.0 * 1.5 / 4, rel=0.02)
        assert abs(float(jnp.mean(u))) < 0.01
    assert abs(float(jnp.mean(first["w"] * second["w"]))) < 0.01
    again, _ = tx.update(zero, tx.init(params), params)
    chex.assert_trees_all_equal(first, again)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_types_are_those_of_the_gradients_and_never_change(dtype: str) -> None:
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    grads = jax.tree.map(lambda g: (1000 * g).astype(dtype), GRADS)
    tx = jopt.dpsgd(0.1, 0.5, 0.0, 0, momentum=0.9)
    state = tx.init(params)
    updates, new = tx.update(grads, state, params)
    assert types(new) == types(state)
    assert types(updates) == types(params)
    norm = jopt.tree.norm(updates)
    assert 0 < norm <= 0.051  # in float16 a norm of 30,000 overflows when squared


def test_one_bad_example_is_seen() -> None:
    grads = {**GRADS, "b": GRADS["b"].at[0, 0].set(jnp.nan)}
    updates, _ = jopt.dpsgd(0.1, 0.5, 0.0, 0).update(
        grads, jopt.dpsgd(0.1, 0.5, 0.0, 0).init(PARAMS), PARAMS
    )
    assert all(bool(jnp.all(jnp.isnan(u))) for u in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    ("grads", "error"),
    [
        ({"b": jnp.ones((6, 3)), "w": jnp.ones((5, 2, 3))}, "{'b': 6, 'w': 5}"),
        ({"b": jnp.ones(()), "w": jnp.ones((5, 2, 3))}, "'b': None"),
    ],
)
def test_what_is_no_gradient_per_example_is_an_error(grads: Any, error: str) -> None:
    tx = jopt.dpsgd(0.1, 0.5, 0.0, 0)
    with pytest.raises(ValueError, match=error):
        tx.update(grads, tx.init(PARAMS), PARAMS)


def test_wrong_numbers_are_errors() -> None:
    with pytest.raises(ValueError, match="l2_norm_clip must be > 0"):
        jopt.dpsgd(0.1, 0.0, 1.0, 0)
    with pytest.raises(ValueError, match="noise_multiplier must be >= 0"):
        jopt.dpsgd(0.1, 1.0, -1.0, 0)
    with pytest.raises(ValueError, match="key must be one key"):
        jopt.dpsgd(0.1, 1.0, 1.0, jax.random.split(jax.random.key(0), 2))


def test_every_leaf_needs_the_same_number_of_examples() -> None:
    tx = jopt.differentially_private_aggregate(1.0, 0.0, 0)
    # The two leaves have one path.
    params = {"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)}
    grads = {"a": {"b": jnp.zeros((3, 1))}, "a/b": jnp.zeros((2, 1))}
    with pytest.raises(ValueError, match="the examples along the first axis"):
        tx.update(grads, tx.init(params), params)
