"""Gradient noise."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt


WITHOUT_ROW = {
    "add_noise": "random; its distribution is tested here",
}


def test_noise_has_the_variance_of_the_paper_and_fades() -> None:
    tx = jopt.add_noise(eta=0.04, gamma=0.5, key=0)
    zeros = {"a": jnp.zeros((200, 200)), "b": jnp.zeros(40_000)}
    state = tx.init(zeros)
    for t in (1, 2, 3):
        noise, state = jax.jit(tx.update)(zeros, state)
        for leaf in jax.tree.leaves(noise):
            assert abs(float(jnp.mean(leaf))) < 4 * 0.2 / 200
            np.testing.assert_allclose(jnp.var(leaf), 0.04 / t**0.5, rtol=0.03)
        assert abs(np.corrcoef(noise["a"].ravel(), noise["b"])[0, 1]) < 0.02
    assert int(state.count) == 3


def test_noise_is_a_function_of_its_key_and_never_repeats() -> None:
    zeros = jnp.zeros(8)

    def two_steps(key: int | jax.Array) -> list[jax.Array]:
        tx = jopt.add_noise(1.0, 0.0, key)
        first, state = tx.update(zeros, tx.init(zeros))
        return [first, tx.update(zeros, state)[0]]

    first, second = two_steps(0)
    assert not np.allclose(first, second)
    chex.assert_trees_all_equal([first, second], two_steps(0))
    chex.assert_trees_all_equal([first, second], two_steps(jax.random.key(0)))
    chex.assert_trees_all_equal([first, second], two_steps(jax.random.PRNGKey(0)))
    assert not np.allclose(first, two_steps(1)[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_noise_keeps_the_types_and_the_missing_leaves(dtype: str) -> None:
    tx = jopt.add_noise(0.1, 0.55, key=3)
    grads = {"none": None, "w": jnp.ones(3, dtype), "empty": jnp.zeros((0, 2), dtype)}
    updates, state = tx.update(grads, tx.init(grads))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(grads))
    assert not np.allclose(updates["w"], grads["w"])


def test_noise_can_be_scheduled_and_saved_as_plain_arrays() -> None:
    tx = jopt.add_noise(jopt.linear_schedule(1.0, 0.0, 1), 0.0, key=0)
    zeros = jnp.zeros(1000)
    noise, state = tx.update(zeros, tx.init(zeros))
    np.testing.assert_allclose(jnp.var(noise), 1.0, rtol=0.2)
    silence, _ = tx.update(zeros, state)
    chex.assert_trees_all_equal(silence, zeros)
    assert all(isinstance(np.asarray(x), np.ndarray) for x in jax.tree.leaves(state))
    assert state.key.dtype == jnp.uint32
