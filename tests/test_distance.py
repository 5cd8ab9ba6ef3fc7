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
from tests import reference


def momentum(rate: float = 1.0) -> Any:
    return jopt.chain(jopt.trace(0.9), jopt.scale(-rate))


FINDERS = {
    "dog": jopt.dog(),
    "ldog": jopt.ldog(),
    "dowg": jopt.dowg(),
    "dadapt_adamw": jopt.dadapt_adamw(),
    "prodigy": jopt.prodigy(),
    "mechanize": jopt.mechanize(momentum(), store_delta=True),
}
every_finder = pytest.mark.parametrize("name", FINDERS)


def on_a_path(tx: Any, dtype: Any, steps: int = 600) -> Any:
    """The state after parameters that go their own way, the same in every dtype."""
    rng = np.random.default_rng(0)
    start = jnp.asarray(rng.normal(size=24), jnp.bfloat16)
    noise = jnp.asarray(rng.normal(size=(steps, 24)), jnp.bfloat16)
    way = jnp.linspace(0.0, 1.0, steps).astype(jnp.bfloat16)

    def step(state: Any, given: Any) -> Any:
        share, g = given
        p = {"w": (start * (1 - share)).astype(dtype)}
        g = {"w": (g + start * (1 - share)).astype(dtype)}
        return tx.update(g, state, p)[1], None

    state = tx.init({"w": start.astype(dtype)})
    return jax.lax.scan(step, state, (way, noise))[0]


def scalars(state: Any) -> dict[str, Any]:
    found = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(n): x for n, x in found if x.size < 24}


@every_finder
def test_estimates_are_in_float32_whatever_the_parameters(name: str) -> None:
    # optax 0.2.8 has them in the parameters' dtype: a sum of squares of 4.8 per step
    # stands still at 2048 in bfloat16.
    narrow = scalars(on_a_path(FINDERS[name], jnp.bfloat16))
    wide = scalars(on_a_path(FINDERS[name], jnp.float32))
    assert narrow
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in narrow.values())
    chex.assert_trees_all_close(narrow, wide, rtol=1e-5)


def quadratic(p: Any) -> Any:
    w = p["w"].astype(jnp.float32)
    return 0.5 * jnp.sum(jnp.linspace(0.1, 1.0, 8) * (w - 3.0) ** 2)


def descend(tx: Any, f: Any, params: Any, steps: int) -> Any:
    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(f)(params), state, params)
        return (jopt.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]


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


def test_the_start_of_narrow_parameters_can_be_kept_as_narrow() -> None:
    narrow = jopt.prodigy(params0_dtype="bfloat16")
    state = on_a_path(narrow, jnp.bfloat16)
    assert state["prodigy"].params0["w"].dtype == jnp.bfloat16
    expected = scalars(on_a_path(jopt.prodigy(), jnp.bfloat16))
    chex.assert_trees_all_equal(scalars(state), expected)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("store_delta", [False, True])
def test_mechanic_has_the_numbers_of_the_paper(
    store_delta: bool, weight_decay: float
) -> None:
    options = {"weight_decay": weight_decay, "s_init": 1e-3, "num_betas": 4}
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=3), "b": rng.normal(size=(2, 2))}
    pull = {n: p + 0.1 * rng.normal(size=p.shape) for n, p in params.items()}
    with jax.enable_x64(True):
        tx = jopt.mechanize(momentum(), store_delta=store_delta, **options)
        x = jax.tree.map(jnp.asarray, params)
        state, update = tx.init(x), jax.jit(tx.update)
        back = jax.tree.map(lambda g: -g, pull)  # the first step was a loss
        grads = [pull] + [back] * 3 + [pull] * 26
        run = reference.mechanize_momentum(params, grads, **options)
        for g, expected in zip(grads, run, strict=True):
            updates, state = update(g, state, x)
            x = jopt.apply_updates(x, updates)
            # Without the steps, they are divided by the factor and eps.
            close = 1e-10 if store_delta else 1e-4
            chex.assert_trees_all_close(x, expected, rtol=close, atol=close)
        assert float(jnp.sum(state.s)) > 0.01  # it has found more than it began with


def test_mechanic_learns_the_rate_of_any_optimizer() -> None:
    params = {"w": jnp.zeros(8)}
    for base in (jopt.adam(1.0), jopt.lion(1.0), jopt.sgd(1e-3, 0.9)):
        final, state = descend(jopt.mechanize(base), quadratic, params, 2000)
        assert quadratic(final) < 0.01 * quadratic(params), base
        assert state.delta is None


def test_mechanic_with_its_steps_kept_moves_bfloat16_parameters() -> None:
    params = {"w": jnp.zeros(8, jnp.bfloat16) + 1}
    tx = jopt.mechanize(jopt.adam(1.0), store_delta=True)
    final, state = descend(tx, quadratic, params, 1000)
    wide, _ = descend(tx, quadratic, {"w": jnp.ones(8)}, 1000)
    assert state.delta["w"].dtype == state.x0["w"].dtype == jnp.float32
    difference = final["w"].astype(jnp.float32) - wide["w"]
    assert np.max(np.abs(difference)) < 0.05


def test_mechanic_hands_on_what_its_optimizer_wants() -> None:
    tx = jopt.mechanize(jopt.polyak_sgd())
    params = {"w": jnp.zeros(8)}
    state, grads = tx.init(params), jax.grad(quadratic)(params)
    updates, state = tx.update(grads, state, params, value=quadratic(params))
    assert np.any(updates["w"] != 0)
    with pytest.raises(TypeError, match="'value'"):
        tx.update(grads, state, params)
    with pytest.raises(ValueError, match="the state's x0"):
        tx.update({"a": jnp.ones(1)}, state, {"a": jnp.ones(1)}, value=1.0)


def test_mechanic_leaves_alone_what_has_no_gradient() -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": None}
    tx = jopt.mechanize(momentum(), store_delta=True)
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    updates, new = tx.update({**params, "b": None}, state, params)
    assert updates["b"] is None and updates["c"] is None
    chex.assert_trees_all_equal(new.delta["b"], state.delta["b"])
    assert np.all(new.delta["a"] != state.delta["a"])
    assert jax.tree.structure(new) == jax.tree.structure(state)


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
        "an average inside",
    ),
    (lambda: anything.mechanize(jopt.sgd), TypeError, "is a function: call it, sgd"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_refused(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
