"""What laws and parity do not say of the relatives of gradient descent."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests import reference


def run(tx: Any, params: Any, grads: list[Any], **extra: Any) -> tuple[Any, Any]:
    """The parameters and the state after these gradients."""
    state = tx.init(params)
    for g in grads:
        params, state = jopt.step(tx, g, state, params, **extra)
    return params, state


def draw(steps: int, seed: int = 0) -> tuple[jax.Array, list[jax.Array]]:
    rng = np.random.default_rng(seed)
    params = jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    return params, [jnp.asarray(rng.normal(size=(3, 2)), "f4") for _ in range(steps)]


# Misuse.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jopt.sgd(0.1, dampening=0.5), "dampening=0.5 needs a momentum"),
        (lambda: jopt.sgd(0.1, 0.9, dampening=1.5), r"in \[0, 1\], got dampening=1.5"),
        (lambda: jopt.sgd(0.1, 0.9, True, dampening=0.1), "without dampening only"),
        (lambda: jopt.noisy_sgd(0.1), "needs a key of jax.random or a seed"),
        (lambda: jopt.rprop(0.0), "> 0 and finite, got learning_rate=0.0"),
        (lambda: jopt.rprop(0.1, eta_plus=0.9), ">= 1, got eta_plus=0.9"),
        (lambda: jopt.asgd(0.1, t0=-1), "t0=-1.0"),
        (lambda: jopt.lion(0.1, mode="soft"), "must be one of 'hard', 'smooth'"),
        (lambda: jopt.lion(0.1, mode="smooth", smooth_beta=0), "smooth_beta=0.0"),
        (lambda: jopt.lars(0.1, norm="both"), "one of 'separate', 'together'"),
        (lambda: jopt.lamb(0.1, decay="after"), "one of 'in_ratio', 'before_step'"),
        (
            lambda: jopt.lamb(0.1, mask="kernel", decay="before_step"),
            "takes no mask, got mask='kernel'.*jopt.partition",
        ),
        (lambda: jopt.polyak_sgd(variant="sps++"), r"one of 'sps', 'sps\+'"),
        (lambda: jopt.polyak_sgd(max_learning_rate=0), "max_learning_rate=0.0"),
        (lambda: jopt.optimistic_adam(0.0, 0.1), "> 0 and finite"),
        (lambda: jopt.momo_adam(eps=0.0), "> 0 and finite, got eps=0.0"),
        (lambda: jopt.novograd(0.1, eps=0.0), "cannot all be zero"),
        (lambda: jopt.apply_every(0), ">= 1, got k=0"),
        (lambda: jopt.normalize_by_update_norm(eps=-1.0), "eps=-1.0"),
    ],
)
def test_wrong_numbers_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jopt.rprop(lambda t: 0.1), "learning_rate must be a number"),
        (lambda: jopt.momo(lower_bound=jopt.tunable(0.0)), "lower_bound must be a"),
        (
            lambda: jopt.optimistic_adam(jopt.tunable(0.1), 0.1),
            "has to be a number then.*optimistic_adam_v2",
        ),
        (lambda: jopt.stateless_with_tree_map(3), "function of a leaf"),
    ],
)
def test_what_is_no_number_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


# Averages, noise, masks.


def test_asgd_averages_the_parameters_after_t0_and_shows_the_average() -> None:
    params, grads = draw(8)
    tx = jopt.asgd(0.1, lambd=0.1, t0=3.0)
    twin = functools.partial(
        reference.asgd, learning_rate=0.1, lambd=0.1, t0=3.0, average=True
    )
    expected = list(twin(np.asarray(params), [np.asarray(g) for g in grads]))
    state = tx.init(params)
    chex.assert_trees_all_equal(jopt.eval_params(tx, state, params), params)
    for g, average in zip(grads, expected, strict=True):
        params, state = jopt.step(tx, g, state, params)
        np.testing.assert_allclose(state["asgd"].ax, average, rtol=1e-5)
        for outer in (tx, jopt.chain(tx)):
            shown = jopt.eval_params(outer, state, params)
            chex.assert_trees_all_equal(shown, state["asgd"].ax)
    assert not np.allclose(state["asgd"].ax, params)


def test_noisy_sgd_is_sgd_on_noisy_gradients() -> None:
    zeros = jnp.zeros(40_000)
    tx = jopt.noisy_sgd(0.5, eta=0.04, gamma=0.5, key=0)
    state = tx.init(zeros)
    for t in (1, 2, 3):
        updates, state = tx.update(zeros, state)
        np.testing.assert_allclose(jnp.var(updates), 0.25 * 0.04 / t**0.5, rtol=0.03)
    again = jopt.noisy_sgd(0.5, 0.04, 0.5, jax.random.key(0))
    chex.assert_trees_all_equal(
        again.update(zeros, again.init(zeros))[0],
        tx.update(zeros, tx.init(zeros))[0],
    )


@pytest.mark.parametrize("norm", ["separate", "together"])
def test_lars_decays_and_scales_the_leaves_of_two_masks(norm: Any) -> None:
    params, grads = draw(3)
    names = {"dw": (True, True), "d": (True, False), "w": (False, True), "0": (0, 0)}
    tx = jopt.lars(
        0.1, 0.2, "^d", 0.5, trust_ratio_mask=lambda path, x: "w" in path, norm=norm
    )
    found, _ = run(
        tx, dict.fromkeys(names, params), [dict.fromkeys(names, g) for g in grads]
    )
    for name, (decayed, scaled) in names.items():
        if scaled:
            alone = jopt.lars(0.1, 0.2 if decayed else 0.0, True, 0.5, norm=norm)
        else:
            decay = jopt.add_decayed_weights(0.2 if decayed else 0.0)
            alone = jopt.chain(decay, jopt.sgd(0.1, 0.9))
        expected, _ = run(alone, params, grads)
        chex.assert_trees_all_close(found[name], expected, rtol=1e-6)


def test_an_optimizer_with_masks_is_compiled_once_however_often_it_is_made() -> None:
    params, grads = (
        {"a": jnp.ones(2), "b": jnp.ones(3)},
        {"a": jnp.ones(2), "b": jnp.ones(3)},
    )

    def step() -> None:
        tx = jopt.lars(0.1, 0.2, {"a": True, "b": False})
        tx.update(grads, tx.init(params), params)

    step()
    with jax.no_tracing():
        step()


def test_lamb_before_the_step_with_a_partition_decays_some_leaves() -> None:
    w, grads = draw(3)
    params = {"bias": w, "kernel": w}
    make = functools.partial(jopt.lamb, 0.1, decay="before_step")
    tx = jopt.partition(
        {"kernel": make(weight_decay=0.5), "bias": make()}, lambda path, _: path
    )
    found, _ = run(tx, params, [{"bias": g, "kernel": g} for g in grads])
    chex.assert_trees_all_equal(found["bias"], run(make(), w, grads)[0])
    decayed = run(make(weight_decay=0.5), w, grads)[0]
    chex.assert_trees_all_equal(found["kernel"], decayed)


# Any magnitude.


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_norms_of_any_magnitude_are_exact(size: float) -> None:
    params = jnp.array([3.0, 4.0])
    grads = size * jnp.array([0.6, 0.8])
    for tx, expected in [
        (jopt.normalize(), [0.6, 0.8]),
        (jopt.normalize_by_update_norm(2.0, eps=0.0), [1.2, 1.6]),
        (jopt.scale_by_lars(0.0, 1.0), [3.0, 4.0]),
        (
            jopt.fromage(1.0, 0.0),
            np.array([-3.0, -4.0]) / 2**0.5 + [-0.87867966, -1.1715729],
        ),
        (jopt.sign_sgd(1.0), [-1.0, -1.0]),
        (jopt.rprop(1.0), [-1.0, -1.0]),
    ]:
        updates, _ = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(updates, expected, rtol=1e-6, err_msg=repr(tx))


def test_the_signs_of_tiny_gradients_count_for_rprop() -> None:
    # The product of two of them would be zero, as for torch and optax.
    tiny = jnp.array([1e-30])
    (params, _) = run(jopt.rprop(1.0), jnp.zeros(1), [tiny, tiny, -tiny, -tiny])
    np.testing.assert_allclose(params, -1.0 - 1.2 - 0.0 + 0.6, rtol=1e-6)


def test_the_step_of_polyak_is_bounded_for_a_vanishing_gradient() -> None:
    tiny = jnp.array([1e-30])
    for value, expected in [(2.0, 1e-30), (0.0, 0.0)]:
        tx = jopt.scale_by_polyak()
        updates, _ = tx.update(tiny, tx.init(tiny), value=value)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
    back = jopt.scale_by_polyak(f_min=1.0)
    updates, _ = back.update(tiny, back.init(tiny), value=0.0)
    assert -jnp.inf < float(updates[0]) < 0


def test_scaling_of_polyak_multiplies_the_step() -> None:
    # optax's divides it, since the norm is that of the scaled gradient.
    grads = jnp.array([3.0, 4.0])
    tx = jopt.polyak_sgd(scaling=0.5)
    updates, _ = tx.update(grads, tx.init(grads), value=5.0)
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize(
    "tx", [jopt.normalize(), jopt.normalize_by_update_norm()], ids=repr
)
def test_a_norm_that_is_not_finite_makes_every_update_nan(tx: Any, bad: float) -> None:
    grads = {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}
    updates, _ = tx.update(grads, tx.init(grads))
    assert all(jnp.isnan(u).all() for u in jax.tree.leaves(updates))


# Transformations.


def test_apply_every_forgets_an_infinite_sum() -> None:
    tx = jopt.apply_every(2)
    state = tx.init(jnp.zeros(1))
    found = []
    for g in (jnp.inf, 1.0, 2.0, 3.0):
        updates, state = tx.update(jnp.array([g]), state)
        found.append(float(updates[0]))
    assert found == [0.0, jnp.inf, 0.0, 5.0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("grad_dtype", ["bfloat16", "float16", "float32"])
def test_no_parameter_ends_below_zero_in_any_dtype(dtype: str, grad_dtype: str) -> None:
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.uniform(0, 1, 1000), dtype)
    grads = -params.astype(grad_dtype) * jnp.asarray(
        rng.choice([0.999, 1, 2], 1000), grad_dtype
    )
    tx = jopt.keep_params_nonnegative()
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    assert updates.dtype == grad_dtype
    after = jopt.apply_updates(params, updates)
    assert bool(jnp.all(after >= 0))
    assert bool(jnp.all(after <= 0.01))


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
    params, grads = draw(2)
    tx = jopt.scale_by_param_block_norm()
    twin = reference.scale_by_param_block_norm(params, [np.asarray(g) for g in grads])
    for g, expected in zip(grads, twin, strict=True):
        found, _ = tx.update(g, (), params)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_stateless_with_tree_map_sees_each_leaf_with_its_parameter() -> None:
    tx = jopt.stateless_with_tree_map(lambda g, p: g if p is None else g + p)
    grads = {"a": jnp.ones(2, jnp.bfloat16), "b": None, "c": jnp.ones(())}
    updates, state = tx.update(grads, tx.init(grads), grads)
    doubled = {"a": jnp.full(2, 2.0, jnp.bfloat16), "b": None, "c": jnp.full((), 2.0)}
    chex.assert_trees_all_equal(updates, doubled)
    chex.assert_trees_all_equal(tx.update(grads, state)[0], grads)
    with pytest.raises(ValueError, match="leaf 'a'"):
        tx.update(grads, state, {**grads, "a": jnp.ones(3)})


def test_momo_finds_a_lower_bound_of_its_own() -> None:
    def f(p: jax.Array) -> jax.Array:
        return 3.0 + jnp.sum(p**2)

    tx = jopt.momo(1.0, adapt_lower_bound=True)
    params, state = jnp.array([1.0, -2.0]), tx.init(jnp.ones(2))
    for _ in range(300):
        value, g = jax.value_and_grad(f)(params)
        params, state = jopt.step(tx, g, state, params, value=value)
    np.testing.assert_allclose(params, 0.0, atol=1e-2)
    np.testing.assert_allclose(state["momo"].lb, 3.0, atol=1e-2)
