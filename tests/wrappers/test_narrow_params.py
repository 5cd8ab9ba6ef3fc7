"""bfloat16 parameters that learn: what steps do with and without `bf16_params`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.wrappers.narrow_params import KEPT
from tests.laws.case import transform
from tests.twins.base import Array, double


def bf16_params(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Parameters of float32 and float64 are trained as without it: momentum here."""
    b = np.zeros_like(double(p))
    for g in grads:
        b = 0.9 * b + double(g)
        yield -0.1 * b


MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
CASES = [
    transform("bf16_params", inner=MOMENTUM, rounding="ecc8"),
    transform("bf16_params", inner=MOMENTUM, rounding="stochastic"),
]

KINDS = list(KEPT)
EXACT = ["kahan", "master", "ecc8", "ecc16"]


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


# What it is for.


def drift(start: jax.Array, steps: jax.Array) -> dict[str, Any]:
    """The parameters after all steps, in one scan: exact, to nearest, and by kind.

    Args:
      start: The parameters.
      steps: What to add: the mean step of each parameter, with noise of 1e-4 on top.
    """
    txs = {"nearest": jopt.scale(1.0)}
    txs |= {kind: jopt.bf16_params(jopt.scale(1.0), kind) for kind in KINDS}  # type: ignore[arg-type]
    start = start.astype(jnp.bfloat16)

    @jax.jit
    def run(start):
        def body(carry, t):
            (total, rest), runs = carry
            key = jax.random.fold_in(jax.random.key(0), t)
            noise = jax.random.normal(key, start.shape)
            u = steps + 1e-4 * noise
            new = total + (u - rest)  # Kahan's sum, in float32
            exact = new, (new - total) - (u - rest)
            after = {}
            for name, tx in txs.items():
                p, state = runs[name]
                step, state = tx.update(u, state, p)
                after[name] = jopt.apply_updates(p, step), state
            return (exact, after), None

        zero = start.astype(jnp.float32)
        runs = {name: (start, tx.init(start)) for name, tx in txs.items()}
        carry = (zero, jnp.zeros_like(zero)), runs
        return jax.lax.scan(body, carry, jnp.arange(20_000))[0]

    (exact, _), runs = run(start)
    found = {
        name: jopt.wide_params(state, p) if name in EXACT else p
        for name, (p, state) in runs.items()
    }
    return wide({"start": start, "exact": exact} | found)


def test_20_000_small_steps_are_lost_to_nearest_and_kept_by_every_kind() -> None:
    rng = np.random.default_rng(0)
    start = jnp.asarray(rng.uniform(0.5, 2, 64), jnp.float32)
    steps = jnp.asarray(rng.choice([-1e-5, 1e-5], 64), jnp.float32)
    found = drift(start, steps)
    moved = np.sqrt(np.mean((found["exact"] - found["start"]) ** 2))

    def error(name):
        return np.sqrt(np.mean((found[name] - found["exact"]) ** 2)) / moved

    np.testing.assert_array_equal(found["nearest"], found["start"])
    assert error("kahan") < 0.005
    assert error("ecc8") < 0.01
    assert error("ecc16") < 1e-4
    assert error("master") < 1e-4
    assert 0.2 < error("stochastic") < 1  # its noise: the root of steps and distance


def test_at_random_the_mean_of_many_parameters_is_exact() -> None:
    tx = jopt.bf16_params(jopt.sgd(1e-4), "stochastic")
    params = jnp.linspace(0.5, 2, 2**16).astype(jnp.bfloat16)
    start = wide(params)

    @jax.jit
    def run(params):
        def body(carry, _):
            params, state = carry
            g = jnp.ones_like(params)
            updates, state = tx.update(g, state, params)
            return (jopt.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=200)[0]

    moved = wide(run(params)[0]) - start
    spread = moved.std() / np.sqrt(moved.size)
    assert spread < 1e-4  # of 0.02
    assert abs(moved.mean() + 200e-4) < 4.5 * spread


@pytest.mark.parametrize("kind", KINDS)
def test_50_steps_of_a_thousandth_move_a_parameter_of_1(kind: Any) -> None:
    def after(tx, start):
        params, state = start, tx.init(start)
        for _ in range(50):
            params, state = jopt.step(tx, jnp.ones_like(start), state, params)
        return wide(params)

    start = jnp.ones(256, jnp.bfloat16)
    assert (after(jopt.sgd(1e-3), start) == 1).all()
    found = after(jopt.bf16_params(jopt.sgd(1e-3), kind), start)
    expected = after(jopt.sgd(1e-3), jnp.ones(256))
    tolerance = 0.01 if kind == "stochastic" else 2.0**-9
    assert abs(found.mean() - expected.mean()) < tolerance
    # Without noise, the nearest number of the expected parameter.
    if kind in ("master", "ecc16"):
        np.testing.assert_array_equal(found, wide(jnp.bfloat16(expected)))


PARAMS = {
    "scale": jnp.ones(7, jnp.bfloat16),
    "kernel": jnp.asarray(np.random.default_rng(1).normal(size=(40, 30)), jnp.bfloat16),
    "small": jnp.asarray(
        np.random.default_rng(2).normal(size=300) * 1e-3, jnp.bfloat16
    ),
    "norm": jnp.full(5, 1.001, jnp.float32),
    "frozen": None,
}


def gradients(t: int, like: Any = None) -> Any:
    rng = np.random.default_rng(t)
    like = PARAMS if like is None else like
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), like)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_gradients_keep_parameters_and_errors_to_the_bit(kind: Any) -> None:
    tx = jopt.bf16_params(jopt.sgd(1e-2), kind)
    params, state = PARAMS | {"zero": jnp.array([0.0, -0.0], jnp.bfloat16)}, None
    state = tx.init(params)
    for t in range(3):
        grads = gradients(t) | {"zero": jnp.zeros(2, jnp.bfloat16)}
        params, state = jopt.step(tx, grads, state, params)
    new, after = params, state
    for _ in range(3):
        zeros = jax.tree.map(jnp.zeros_like, params)
        new, after = jopt.step(tx, zeros, after, new)

    def bits(tree):
        return [x.tobytes() for x in jax.tree.leaves(jax.tree.map(np.asarray, tree))]

    assert bits(new) == bits(params)
    assert bits(after.error) == bits(state.error)


# Nothing is lost: the parameter and its error are what float32 would have.


@pytest.mark.parametrize("kind", ["ecc16", "master"])
def test_training_is_that_of_float32_parameters(kind: Any) -> None:
    recipe = jopt.chain(
        jopt.clip_by_global_norm(5.0), jopt.adamw(3e-3, weight_decay=0.1)
    )
    tx = jopt.bf16_params(recipe, kind)
    params, expected = PARAMS, jopt.tree.cast(PARAMS, jnp.float32)
    state, of_wide = tx.init(params), recipe.init(expected)
    for t in range(20):  # small parameters change their signs on the way
        grads = gradients(t)
        params, state = jopt.step(tx, grads, state, params)
        grads = jopt.tree.cast(grads, jnp.float32)
        expected, of_wide = jopt.step(recipe, grads, of_wide, expected)
    found = jopt.wide_params(state, params)
    for name in ("scale", "kernel", "small", "norm"):
        assert found[name].dtype == jnp.float32
        np.testing.assert_allclose(found[name], expected[name], 3e-6, 1e-8)
        off = abs(wide(params[name]) - wide(expected[name]))
        assert (off <= 2.0**-8 * abs(wide(expected[name])) + 1e-8).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_counted_from_where_the_update_leads(kind: Any) -> None:
    start = jnp.array([1.0, 1.0, -1000.0, 3e38, 1e-30], jnp.bfloat16)
    end = jnp.array([3e-9, -1e-12, 1e-5, 1.0, 2.0], jnp.float32)
    tx = jopt.bf16_params(jopt.identity(), kind)
    u = end - start.astype(jnp.float32)
    updates, state = tx.update(u, tx.init(start), start)
    assert updates.dtype == jnp.float32
    new = jopt.apply_updates(start, updates)
    found = wide(jopt.wide_params(state, new) if kind in EXACT else new)
    exact = wide(start.astype(jnp.float32) + u)
    size = abs(wide(start))
    # float32 itself is off by this much: 1 - 3e-9 is not one of its numbers.
    assert (abs(found - exact) <= 2.0**-24 * size + 2.0**-8 * abs(exact)).all()
    if kind == "master":
        assert (abs(found - exact) <= 2.0**-24 * abs(exact) + 1e-40).all()


def test_what_inner_gives_is_never_rounded_before_it_is_added() -> None:
    seen = []

    def update(updates, state, params):
        seen.append((updates, params))
        return jax.tree.map(lambda g: -1e-3 * g, updates), state

    inner = jopt.GradientTransformation(lambda params: (), update)
    tx = jopt.bf16_params(inner, "ecc16")
    params, state = PARAMS, tx.init(PARAMS)
    for t in range(2):
        updates, state = tx.update(gradients(t), state, params)
        params = jopt.apply_updates(params, updates)
    for tree in seen[1]:
        assert {x.dtype.name for x in jax.tree.leaves(tree)} == {"float32"}
    g0 = gradients(0)["kernel"].astype(jnp.float32)
    step = PARAMS["kernel"].astype(jnp.float32) - 1e-3 * g0
    np.testing.assert_allclose(seen[1][1]["kernel"], step, 2e-7)


# What it is made of.


def test_the_state_has_what_is_kept_and_nothing_for_other_leaves() -> None:
    for kind, dtype in KEPT.items():
        state: Any = jopt.bf16_params(jopt.sgd(0.1), kind).init(PARAMS)  # type: ignore[arg-type]
        assert (state.count is not None) == (kind == "stochastic")
        assert state.error["norm"] is None
        assert state.error["frozen"] is None
        kept = state.error["kernel"]
        if dtype is None:
            assert kept is None
        else:
            assert kept.dtype == dtype
            assert kept.shape == PARAMS["kernel"].shape
            assert not kept.any()


@pytest.mark.parametrize("kind", ["kahan", "ecc16"])
def test_float16_parameters_learn_too_but_not_at_random(kind: Any) -> None:
    params = jnp.array([1.0, 1e-4, 3e-7], jnp.float16)
    tx = jopt.bf16_params(jopt.sgd(1e-4), kind)
    state = tx.init(params)
    for _ in range(50):
        params, state = jopt.step(tx, -jnp.ones_like(params), state, params)
    expected = wide(jnp.float16([1.0, 1e-4, 3e-7])) + 50e-4
    np.testing.assert_allclose(wide(params), expected, 2.0**-11)
    with pytest.raises(TypeError, match=r"leaf 'w' is float16\. Make it bfloat16, or"):
        jopt.bf16_params(jopt.sgd(0.1), "stochastic").init({"w": params})


def test_an_unknown_rounding_and_a_missing_slot_are_named() -> None:
    with pytest.raises(ValueError, match="rounding must be one of 'stochastic', 'kah"):
        jopt.bf16_params(jopt.sgd(0.1), "ecc4")  # type: ignore[arg-type]
    tx = jopt.bf16_params(jopt.sgd(0.1), "ecc8")
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = tx.init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="no slot for leaf 'w'"):
        tx.update(params, state, params)
    with pytest.raises(TypeError, match="bf16_params needs the parameters"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="the state has no bf16_params"):
        jopt.wide_params(jopt.sgd(0.1).init(params), params)
