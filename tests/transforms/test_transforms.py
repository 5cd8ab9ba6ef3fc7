"""What the laws do not say of single transformations: noise, norms, NaN, momentum."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt


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


def test_stateless_gets_updates_and_params() -> None:
    tx = jopt.stateless(lambda updates, params: (updates, params))
    assert tx.update(1.0, (), 2.0) == ((1.0, 2.0), ())
    assert tx.update(1.0, ()) == ((1.0, None), ())
    assert jopt.chain(tx).init(jnp.ones(1)) == {}


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    "tx",
    [
        jopt.clip_by_global_norm(1.0),
        jopt.clip_by_norm(1.0),
        jopt.clip_by_block_rms(1.0),
        jopt.adaptive_grad_clip(0.1),
    ],
    ids=repr,
)
def test_clipping_a_norm_that_is_not_finite_gives_nan_and_never_zeros(
    tx: jopt.GradientTransformation, bad: float
) -> None:
    grads = jnp.array([1.0, bad, 2.0])
    updates, _ = tx.update(grads, tx.init(grads), jnp.ones(3))
    assert jnp.all(jnp.isnan(updates))


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e30])
def test_clipping_by_norm_scales_any_size_exactly(size: float) -> None:
    direction = np.array([0.6, 0.0, 0.8])
    grads = jnp.asarray(size * direction, jnp.float32)
    bound = 0.01 * size
    for tx in (jopt.clip_by_global_norm(bound), jopt.clip_by_norm(bound)):
        updates, _ = tx.update(grads, tx.init(grads))
        np.testing.assert_allclose(updates / bound, direction, rtol=1e-6)
        loose, _ = jopt.clip_by_global_norm(2 * size).update(grads, ())
        chex.assert_trees_all_equal(loose, grads)


def test_a_float16_gradient_is_clipped_by_its_true_norm() -> None:
    grads = jnp.full(10, 300.0, jnp.float16)  # the squares do not fit into float16
    updates, _ = jopt.clip_by_global_norm(1.0).update(grads, ())
    norm = np.linalg.norm(np.asarray(updates, np.float64))
    np.testing.assert_allclose(norm, 1.0, rtol=2e-3)


def test_units_of_adaptive_clipping_are_the_inputs_of_an_output() -> None:
    params = jnp.ones((2, 3))
    grads = jnp.array([[3.0, 0.0, 0.1], [4.0, 0.0, 0.1]])
    tx = jopt.adaptive_grad_clip(0.5)
    updates, _ = tx.update(grads, tx.init(params), params)
    bound = 0.5 * np.sqrt(2)
    expected = np.array(grads)
    expected[:, 0] *= bound / 5.0
    np.testing.assert_allclose(updates, expected, rtol=1e-6)
    whole = jopt.adaptive_grad_clip(0.5, axis=(0, 1))
    updates, _ = whole.update(grads, whole.init(params), params)
    factor = 0.5 * np.sqrt(6) / np.linalg.norm(grads)
    np.testing.assert_allclose(updates, factor * np.asarray(grads), rtol=1e-6)


def test_zero_nans_keeps_infinities() -> None:
    grads = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0])
    updates, _ = jopt.zero_nans().update(grads, ())
    chex.assert_trees_all_equal(updates, jnp.array([0.0, jnp.inf, -jnp.inf, 1.0]))


def test_moments_of_low_precision_params_are_float32_unless_asked_otherwise() -> None:
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = jopt.adam(1e-3).init(params)["scale_by_adam"]
    assert state.mu["w"].dtype == state.nu["w"].dtype == jnp.float32
    chosen = jopt.adam(1e-3, mu_dtype="bfloat16", nu_dtype="float16").init(params)
    assert chosen["scale_by_adam"].mu["w"].dtype == jnp.bfloat16
    assert chosen["scale_by_adam"].nu["w"].dtype == jnp.float16


def test_the_second_moment_of_bfloat16_params_decays() -> None:
    # In bfloat16 0.999 * v rounds to v: optax still has 0.34 of 1 here, the truth is
    # 0.05.
    params = {"w": jnp.ones(4, jnp.bfloat16)}
    tx = jopt.scale_by_adam()
    state = tx.init(params)
    _, state = tx.update({"w": jnp.full(4, 32.0, jnp.bfloat16)}, state)
    start = state.nu["w"]

    def body(state: object, _: None) -> tuple[object, None]:
        return tx.update({"w": jnp.zeros(4, jnp.bfloat16)}, state)[1], None

    state, _ = jax.lax.scan(body, state, length=3000)
    np.testing.assert_allclose(state.nu["w"] / start, 0.999**3000, rtol=1e-4)


def test_l1_of_ftrl_makes_weights_exactly_zero() -> None:
    tx = jopt.ftrl(0.5, l1=1.0)
    params = jnp.zeros(2)
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(jnp.array([0.01, 4.0]), state, params)
        params = jopt.apply_updates(params, updates)
    assert float(params[0]) == 0.0
    assert float(params[1]) < -0.1
