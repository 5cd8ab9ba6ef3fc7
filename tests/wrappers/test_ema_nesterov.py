"""EMA-Nesterov: gradients from ahead along the average of the steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.matrix_problem import close_to_golden


WITHOUT_ROW = {"ema_nesterov": "a wrapper; a golden trajectory"}


def test_points_are_those_of_the_record() -> None:
    # Ahead for the gradients 2 to 9, which are taken after the updates 1 to 8.
    ahead = jopt.piecewise_constant([1, 9], [0.0, 0.6, 0.0])
    inner = jopt.sgd(0.1, momentum=0.5)
    close_to_golden("ema_nesterov", jopt.ema_nesterov(inner, ahead, 0.9), average=True)


def test_without_a_step_size_it_is_the_inner_optimizer() -> None:
    params, plain = {"w": jnp.array([1.0, -2.0]), "n": None}, jopt.adam(0.1)
    tx = jopt.ema_nesterov(plain, 0.0)
    state, own, alone = tx.init(params), plain.init(params), params
    for _ in range(3):
        params, state = jopt.step(tx, params, state, params)
        alone, own = jopt.step(plain, alone, own, alone)
        np.testing.assert_array_equal(params["w"], alone["w"])
        np.testing.assert_allclose(
            jopt.eval_params(tx, state, params)["w"], alone["w"], rtol=1e-7
        )


def test_it_is_faster_on_a_slow_quadratic() -> None:
    scale = jnp.array([1.0, 0.01])
    ends = {}
    for name, tx in {
        "sgd": jopt.sgd(0.5),
        "ahead": jopt.ema_nesterov(jopt.sgd(0.5), 0.8, 0.9),
    }.items():
        params = jnp.ones(2)
        state = tx.init(params)

        def body(_, carry, tx=tx):
            params, state = carry
            updates, state = tx.update(scale * params, state, params)
            return jopt.apply_updates(params, updates), state

        params, state = jax.lax.fori_loop(0, 200, body, (params, state))
        end = jopt.eval_params(tx, state, params, default=params)
        ends[name] = float(jnp.sum(scale * end**2))
    assert ends["ahead"] < 0.1 * ends["sgd"]


def test_an_average_or_a_projection_has_to_be_outside() -> None:
    for last in (jopt.params_ema(0.9), jopt.keep_params_nonnegative()):
        with pytest.raises(ValueError, match="Put it after ema_nesterov"):
            jopt.ema_nesterov(jopt.chain(jopt.sgd(0.1), last))
    with pytest.raises(ValueError, match="changes the updates after 'ema_nesterov'"):
        jopt.chain(jopt.ema_nesterov(jopt.sgd(0.1)), jopt.scale(0.5))
