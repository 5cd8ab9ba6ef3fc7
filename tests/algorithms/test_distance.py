"""Optimizers that find their own step size: what the laws do not say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import descend, momentum, on_a_path, quadratic, scalars


FINDERS = {
    "dog": jopt.dog(),
    "ldog": jopt.ldog(),
    "dowg": jopt.dowg(),
    "dadapt_adamw": jopt.dadapt_adamw(),
    "prodigy": jopt.prodigy(),
    "mechanize": jopt.mechanize(momentum(), store_delta=True),
}
every_finder = pytest.mark.parametrize("name", FINDERS)


@every_finder
def test_estimates_are_in_float32_whatever_the_parameters(name: str) -> None:
    # optax 0.2.8 has them in the parameters' dtype: a sum of squares of 4.8 per step
    # stands still at 2048 in bfloat16.
    narrow = scalars(on_a_path(FINDERS[name], jnp.bfloat16))
    wide = scalars(on_a_path(FINDERS[name], jnp.float32))
    assert narrow
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in narrow.values())
    chex.assert_trees_all_close(narrow, wide, rtol=1e-5)


@every_finder
def test_from_steps_of_a_millionth_it_gets_to_a_minimum_a_few_units_away(
    name: str,
) -> None:
    params = {"w": jnp.zeros(8)}
    final, _ = descend(FINDERS[name], quadratic, params, 2000)
    assert quadratic(final) < 1e-3 * quadratic(params)


@pytest.mark.parametrize(
    "tx",
    [
        jopt.dog(eps=1e-20),
        jopt.ldog(eps=1e-20),
        jopt.dowg(0.01, eps=1e-12),
        jopt.dadapt_adamw(eps=1e-20),
        jopt.prodigy(eps=1e-20),
        jopt.cocob(eps=1e-20),
    ],
    ids=lambda tx: tx.recipe.name,
)
def test_the_scale_of_the_loss_is_of_no_account(tx: Any) -> None:
    params = {"w": jnp.zeros(8)}
    one, _ = descend(tx, quadratic, params, 30)
    other, _ = descend(tx, lambda p: 2.0**10 * quadratic(p), params, 30)
    assert np.any(one["w"] != params["w"])
    chex.assert_trees_all_close(one, other, rtol=1e-4)


@every_finder
def test_zero_gradients_at_first_do_no_harm(name: str) -> None:
    # optax 0.2.8 divides zero by zero in D-Adaptation and Prodigy, and stays NaN.
    tx, params = FINDERS[name], {"w": jnp.ones(4)}
    state = tx.init(params)
    for g in (0.0, 0.0, 1.0, 1.0):
        updates, state = tx.update({"w": jnp.full(4, g)}, state, params)
        chex.assert_tree_all_finite((updates, state))
    assert np.all(updates["w"] < 0)


@pytest.mark.parametrize("make", [jopt.dadapt_adamw, jopt.prodigy])
def test_the_growth_of_the_estimate_can_be_bounded(make: Any) -> None:
    def estimates(**options: Any) -> np.ndarray:
        tx, params = make(**options), {"w": jnp.zeros(8)}
        state, found = tx.init(params), []
        for _ in range(40):
            updates, state = tx.update(jax.grad(quadratic)(params), state, params)
            params = jopt.apply_updates(params, updates)
            found.append(float(state[tx.name].estim_lr))
        return np.array(found)

    free = estimates()
    assert np.max(free[1:] / free[:-1]) > 1.5
    # Prodigy's first growth is free.
    bounded = estimates(growth_rate=1.02, estim_lr0=1e-3)[1:]
    assert np.max(bounded[1:] / bounded[:-1]) < 1.0201
    assert bounded[-1] > 1.5e-3


anything: Any = jopt  # whose types nobody checks
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: anything.dog(init_step=1e-6), TypeError, "init_step must be a pair"),
    (
        lambda: anything.dog(init_step=("far", 1.0)),
        ValueError,
        "must be one of 'distance'",
    ),
    (
        lambda: jopt.dog(init_step=("distance", 0.0)),
        ValueError,
        r"init_step\[1\] must be > 0",
    ),
    (lambda: jopt.dog(eps=0.0), ValueError, "eps must be > 0"),
    (lambda: jopt.ldog(reps_rel=-1.0), ValueError, "reps_rel must be > 0"),
    (lambda: jopt.dowg(init_estim_sq_dist=0.0), ValueError, "init_estim_sq_dist must"),
    (lambda: anything.dadapt_adamw(betas=0.9), TypeError, "betas must be a pair"),
    (
        lambda: jopt.dadapt_adamw(betas=(0.9, 1.0)),
        ValueError,
        r"betas\[1\] must be in \[0, 1\)",
    ),
    (lambda: jopt.dadapt_adamw(estim_lr0=0.0), ValueError, "estim_lr0 must be > 0"),
    (lambda: jopt.prodigy(growth_rate=0.9), ValueError, "growth_rate must be >= 1"),
    (lambda: jopt.prodigy(beta3=1.5), ValueError, r"beta3 must be in \[0, 1\)"),
    (lambda: jopt.prodigy(weight_decay=-1.0), ValueError, "weight_decay must be >= 0"),
    (lambda: jopt.cocob(alpha=0.0), ValueError, "alpha must be > 0"),
    (
        lambda: jopt.mechanize(jopt.sgd(1.0), num_betas=0),
        ValueError,
        "num_betas must be >= 1",
    ),
    (
        lambda: jopt.mechanize(jopt.schedule_free_sgd()),
        ValueError,
        "an average or a projection inside",
    ),
    (lambda: anything.mechanize(jopt.sgd), TypeError, "is a function: call it, sgd"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_refused(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
