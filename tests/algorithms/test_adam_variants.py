"""What the laws and the tables do not say of the relatives of Adam."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.algorithms.radam import average_length


def updates_of(tx: Any, grads: list[Any], params: Any) -> list[Any]:
    state, found = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        found.append(updates)
    return found


WITH_DECAY: list[Callable[..., Any]] = [
    jopt.acprop,
    jopt.adabelief,
    jopt.adan,
    jopt.ademamix,
    jopt.adopt,
    jopt.laprop,
    jopt.radam,
    jopt.simplified_ademamix,
]


@pytest.mark.parametrize("factory", WITH_DECAY, ids=lambda f: f.__name__)
def test_without_weight_decay_no_params_are_needed(factory: Any) -> None:
    params = jnp.ones(2)
    tx = factory(0.1)
    tx.update(params, tx.init(params))
    decaying = factory(0.1, weight_decay=0.1)
    with pytest.raises(TypeError, match="needs the parameters"):
        decaying.update(params, decaying.init(params))


@pytest.mark.parametrize("factory", WITH_DECAY, ids=lambda f: f.__name__)
def test_the_mask_says_what_decays_and_no_more(factory: Any) -> None:
    mask = "weight_decay_mask" if factory is jopt.adabelief else "mask"
    params = {"bias": jnp.ones(2), "kernel": jnp.ones(2)}
    grads = [jax.tree.map(lambda p: 0.5 * p, params)] * 3
    plain = updates_of(factory(0.1), grads, params)
    masked = updates_of(
        factory(0.1, weight_decay=0.1, **{mask: "kernel"}), grads, params
    )
    decayed = updates_of(factory(0.1, weight_decay=0.1), grads, params)
    chex.assert_trees_all_close([u["bias"] for u in masked], [u["bias"] for u in plain])
    chex.assert_trees_all_equal(
        [u["kernel"] for u in masked], [u["kernel"] for u in decayed]
    )
    assert not np.allclose(masked[-1]["kernel"], plain[-1]["kernel"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jopt.adabelief(0.1, b1=0.0), "b1 must be > 0"),
        (lambda: jopt.acprop(0.1, b1=0.0), "b1 must be > 0"),
        (lambda: jopt.acprop(0.1, eps=0.0, eps_root=0.0), "cannot all be zero"),
        (lambda: jopt.yogi(0.1, initial_accumulator_value=-1.0), "must be >= 0"),
        (lambda: jopt.yogi(0.1, initial_mu=math.nan), "initial_mu must be a finite"),
        (lambda: jopt.radam(0.1, threshold=3.0), "threshold must be >= 4, got"),
        (lambda: jopt.adan(0.1, b3=1.0), r"b3 must be in \[0, 1\)"),
        (lambda: jopt.adopt(0.1, eps=0.0), "eps must be > 0"),
        (lambda: jopt.ademamix(0.1, alpha=-1.0), "alpha must be >= 0"),
        (lambda: jopt.ademamix(0.1, b3_warmup=0), "b3_warmup must be >= 1"),
        (lambda: jopt.ademamix(0.1, alpha_warmup=-5), "alpha_warmup must be >= 1"),
        (lambda: jopt.laprop(0.1, eps=0.0), "cannot all be zero"),
        (lambda: jopt.skip_first(-1), "steps must be >= 0"),
        (lambda: jopt.proximal_decay(0.1, -0.1), "weight_decay must be >= 0"),
    ],
)
def test_wrong_numbers_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_adopts_clipping_is_a_function_that_may_be_a_schedule() -> None:
    with pytest.raises(TypeError, match=r"clip_value_fn must be a function.*got.*2\.0"):
        jopt.adopt(0.1, clip_value_fn=2.0)
    ramp = jopt.linear_schedule(0.0, 10.0, 20)
    tx = jopt.scale_by_adopt(b1=0.0, clip_value_fn=ramp)
    assert jopt.from_config(jopt.to_config(tx)) == tx
    grads = [jnp.array([1e-3]), jnp.array([1.0]), jnp.array([1.0])]
    found = updates_of(tx, grads, jnp.zeros(1))
    np.testing.assert_allclose(jnp.stack(found)[:, 0], [0.0, 0.5, 1.0])


def test_adopt_takes_complex_gradients_unless_it_clips() -> None:
    params = jnp.ones(2, jnp.complex64)
    with pytest.raises(TypeError, match="complex64"):
        jopt.adopt(0.1).init(params)
    tx = jopt.scale_by_adopt(b1=0.0, use_clipping=False)
    _, second = updates_of(tx, [params * 2, params * 1j], params)
    np.testing.assert_allclose(second, 0.5j * np.ones(2), rtol=1e-6)


def test_adopts_first_step_moves_nothing_and_decays_nothing() -> None:
    params = jnp.ones(2)
    first, second = updates_of(jopt.adopt(0.1, weight_decay=0.5), [params] * 2, params)
    chex.assert_trees_all_equal(first, jnp.zeros(2))
    np.testing.assert_allclose(second, -0.1 * (0.1 + 0.5), rtol=1e-6)


def test_yogi_leaves_parameters_without_gradient_where_they_are() -> None:
    zeros = jnp.zeros(3)
    for update in updates_of(jopt.yogi(0.1), [zeros] * 3, zeros):
        chex.assert_trees_all_equal(update, zeros)
    as_in_optax = updates_of(jopt.yogi(0.1, initial_mu=1e-6), [zeros], zeros)
    assert jnp.all(jnp.abs(as_in_optax[0]) > 1e-5)


def test_yogis_second_moment_survives_an_overflow_and_a_decrease() -> None:
    tx = jopt.scale_by_yogi(b2=0.9)
    huge, small = jnp.array([1e30]), jnp.array([1.0])
    for update in updates_of(tx, [huge, huge, small, huge], huge):
        chex.assert_tree_all_finite(update)
    state = tx.init(small)
    _, state = tx.update(small, state)
    np.testing.assert_allclose(state.nu, [0.1], rtol=1e-4)
    _, state = tx.update(0.1 * small, state)  # by a tenth of 0.01, not of 0.1
    np.testing.assert_allclose(state.nu, [0.099], rtol=1e-4)


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999])
def test_radams_length_keeps_its_digits_in_float32(b2: float) -> None:
    t = np.array([1, 2, 5, 6, 7, 20, 100, 1000, 10**5, 10**7])
    with jax.enable_x64(True):
        exact = np.asarray(average_length(b2, jnp.asarray(t, jnp.float64)))
    if b2 < 0.999:  # where float64 has digits to spare, by the definition
        power = np.power(b2, t.astype(float))
        definition = 2 / (1 - b2) - 1 - 2 * t * power / (1 - power)
        np.testing.assert_allclose(exact, definition, rtol=1e-11)
    np.testing.assert_allclose(
        average_length(b2, jnp.asarray(t, jnp.float32)), exact, 2e-5
    )
    np.testing.assert_allclose(exact[0], 1.0, rtol=1e-9)


def test_radam_warms_up_with_momentum_and_ends_as_adam() -> None:
    g = jnp.array([0.01, -3.0])
    found = updates_of(jopt.scale_by_radam(), [g] * 6, g)
    for update in found[:5]:
        np.testing.assert_allclose(update, g, rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(found[5]), 0.0259, rtol=0.01)  # r_6
    late = jopt.scale_by_radam(b2=0.9)
    np.testing.assert_allclose(updates_of(late, [g] * 100, g)[-1], jnp.sign(g), 1e-3)


def test_a_proximal_decay_never_overshoots() -> None:
    params = jnp.array([4.0, -2.0])
    tx = jopt.proximal_decay(1.0, weight_decay=1e3)
    (update,) = updates_of(tx, [jnp.zeros(2)], params)
    np.testing.assert_allclose(params + update, params / 1001, rtol=1e-4)


def test_adans_state_is_the_same_with_and_without_decay() -> None:
    params = jnp.ones(2)
    states = [
        jopt.adan(0.1, weight_decay=decay, no_prox=no_prox).init(params)
        for decay in (0.0, 0.1)
        for no_prox in (False, True)
    ]
    shown = [{name: x._fields for name, x in state.items()} for state in states]
    assert all(x == shown[0] for x in shown)
    tx = jopt.adan(0.1, weight_decay=0.1)
    state = jopt.set_hyperparams(tx, tx.init(params), learning_rate=0.0)
    chex.assert_trees_all_equal(tx.update(params, state, params)[0], jnp.zeros(2))


def test_adan_looks_at_how_the_gradient_changes() -> None:
    steady = [jnp.array([1.0])] * 2
    growing = [jnp.array([1.0]), jnp.array([2.0])]
    tx = jopt.scale_by_adan(b1=0.5, b2=0.5, b3=0.0)
    np.testing.assert_allclose(updates_of(tx, steady, steady[0])[1], [1.0], rtol=1e-6)
    # m^ = 5/3, v^ = 2/3, n = (2 + 0.5)^2
    found = updates_of(tx, growing, steady[0])[1]
    np.testing.assert_allclose(found, [(5 / 3 + 1 / 3) / 2.5], rtol=1e-6)


def test_ademamixs_warmup_is_linear_in_the_half_life() -> None:
    # With g = 1 in one step only, m2 decays by b3 of each later step.
    tx = jopt.scale_by_ademamix(b1=0.5, b3=0.9999, b3_warmup=10)
    state = tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.ones(1), state)
    m2 = [float(state.m2[0])]
    for _ in range(12):
        _, state = tx.update(jnp.zeros(1), state)
        m2.append(float(state.m2[0]))
    half_lives = -math.log(2) / np.log(np.divide(m2[1:], m2[:-1]))
    start, end = 1.0, -math.log(2) / math.log(0.9999)
    share = np.minimum(np.arange(2, 14) / 10, 1)
    np.testing.assert_allclose(half_lives, start + share * (end - start), rtol=2e-3)


def test_ademamixs_slow_average_has_all_digits_of_one_minus_b3() -> None:
    g = jnp.ones(1)
    for options in ({}, {"b3_warmup": 1}):
        tx = jopt.scale_by_ademamix(b3=0.9999, **options)
        _, state = tx.update(g, tx.init(g))
        np.testing.assert_allclose(state.m2, [1e-4], rtol=1e-6)


def test_ademamix_starts_as_adam_under_its_warmups() -> None:
    g = jnp.array([3.0])
    tx = jopt.scale_by_ademamix(b1=0.0, alpha=8.0, b3_warmup=100, alpha_warmup=1000)
    (first,) = updates_of(tx, [g], g)
    chex.assert_tree_all_finite(first)
    np.testing.assert_allclose(first, [1.0], atol=0.01)


def test_nadamw_is_optaxs_adamw_with_nesterov() -> None:
    params = jnp.array([1.0, -2.0])
    grads = [params, -params, 2 * params]
    chex.assert_trees_all_equal(
        updates_of(jopt.nadamw(0.1), grads, params),
        updates_of(jopt.adamw(0.1, nesterov=True), grads, params),
    )
