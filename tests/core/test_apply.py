"""From updates to parameters: one rounding, no dtype changes, one compilation."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

import jopt
from jopt.core import fused, tree_checks


PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
GRADS = jax.tree.map(lambda p: 0.1 * p + 0.2, PARAMS)
RNG = np.random.default_rng(0)


def numbers(dtype: str, size: float = 1.0, n: int = 2000) -> Any:
    """Random numbers of a dtype; complex ones in both parts."""
    x = size * RNG.normal(size=(2, n))
    z = x[0] + 1j * x[1] if dtype.startswith("complex") else x[0]
    return jnp.asarray(z, dtype)


def wide(x: Any) -> Any:
    """As float64, or complex128."""
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


# The dtypes of params and updates; float64 sums of the others are exact.
DTYPES = [
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("float16", "bfloat16"),
    ("float32", "bfloat16"),
    ("float32", "float32"),
    ("complex64", "complex64"),
    ("complex64", "float32"),
]


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("param", "update"), DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_the_sum_is_rounded_once_to_the_dtype_of_the_parameter(
    param: str, update: str, size: float, jit: bool
) -> None:
    p, u = numbers(param), numbers(update, size)
    apply = jax.jit(jopt.apply_updates) if jit else jopt.apply_updates
    after = apply({"w": p}, {"w": u})["w"]
    assert after.dtype == jnp.dtype(param)
    exact = wide(p) + wide(u)
    # float32 first, as the exact sum may have more than its digits; then the dtype.
    single = np.complex64 if np.iscomplexobj(exact) else np.float32
    expected = jnp.asarray(exact.astype(single)).astype(param)
    np.testing.assert_array_equal(after, expected)


def test_small_updates_are_not_lost_by_rounding_them_first() -> None:
    """1 + 2^-8 lies between two numbers of bfloat16, and 2^-8 + 2^-17 just above."""
    p = jnp.ones(1, jnp.bfloat16)
    update = jnp.full(1, 2.0**-8 + 2.0**-17)
    assert jopt.apply_updates(p, update) == 1 + 2.0**-7
    assert jopt.apply_updates(p, update.astype(jnp.bfloat16)) == 1.0  # to even


def test_float64_keeps_its_digits_under_x64() -> None:
    with jax.enable_x64(True):
        p, u = jnp.asarray([1.0]), jnp.asarray([1e-12])
        np.testing.assert_array_equal(jopt.apply_updates(p, u), [1.0 + 1e-12])
        after = jopt.apply_updates(p, u.astype(jnp.float32))
        assert after.dtype == jnp.float64
        np.testing.assert_allclose(after - 1, 1e-12, rtol=1e-3)
        assert jopt.apply_updates(p.astype(jnp.float32), u).dtype == jnp.float32


def test_a_parameter_whose_update_is_none_stays_what_it_is() -> None:
    count = jnp.arange(3)  # what cannot be optimized may stay in the tree
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(2), "count": count}, "d": None}
    updates = {"a": jnp.ones(2), "b": {"c": None, "count": None}, "d": None}
    after = jopt.apply_updates(params, updates)
    chex.assert_trees_all_equal(after, params | {"a": jnp.full(2, 2.0)})
    assert after["b"]["count"] is count


def test_the_gradient_of_integers_that_jax_gives_leaves_them_as_they_are() -> None:
    params = {"codes": jnp.arange(3), "w": jnp.ones(2)}
    grads = jax.grad(lambda p: p["w"].sum(), allow_int=True)(params)
    assert grads["codes"].dtype == jax.dtypes.float0
    after = jopt.apply_updates(params, grads)
    chex.assert_trees_all_equal(after, params | {"w": jnp.full(2, 2.0)})


CONTAINERS = [
    jnp.ones(3),
    [jnp.ones(3), (jnp.ones(()), {})],
    freeze({"a": {"b": jnp.ones((2, 0))}}),
    {"a": np.ones(2, np.float32)},
    {},
]


@pytest.mark.parametrize(
    "params", CONTAINERS, ids=["array", "list", "Frozen", "np", "{}"]
)
def test_the_parameters_keep_their_container_and_shapes(params: Any) -> None:
    after = jopt.apply_updates(params, jax.tree.map(lambda p: 0.5 * p, params))
    assert jax.tree.structure(after) == jax.tree.structure(params)
    chex.assert_trees_all_close(after, jax.tree.map(lambda p: 1.5 * p, params))


# step.


def loss(params: Any) -> Any:
    return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))


STEPS = [
    (jopt.sgd(0.1), {}),
    (jopt.chain(jopt.clip_by_global_norm(0.5), jopt.adamw(0.1, mask="kernel")), {}),
    (jopt.adam(jopt.tunable(0.1)), {"value": 1.0, "unused": {"a": jnp.ones(2)}}),
    (optax.polyak_sgd(0.1), {"value": 1.0}),
]


@pytest.mark.parametrize(("tx", "extra"), STEPS)
def test_a_step_is_update_and_apply(tx: Any, extra: Any) -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        params, state = PARAMS, tx.init(PARAMS)
        expected, expected_state = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            params, state = jopt.step(tx, GRADS, state, params, **extra)
            declared = extra if not isinstance(tx, jopt.GradientTransformation) else {}
            updates, expected_state = tx.update(
                GRADS, expected_state, expected, **declared
            )
            expected = jopt.apply_updates(expected, updates)
        chex.assert_trees_all_close(params, expected, rtol=1e-6)
        chex.assert_trees_all_close(state, expected_state, rtol=1e-6)


def test_a_step_compiles_once_also_for_an_optimizer_that_is_made_again() -> None:
    traces = []

    def note(updates: Any, params: Any) -> Any:
        traces.append(None)
        return updates

    def make(rate: float) -> Any:
        return jopt.chain(jopt.stateless(note), jopt.adamw(rate))

    params, state = PARAMS, make(0.1).init(PARAMS)
    for t in range(5):
        grads = jax.tree.map(lambda g, t=t: t * g, GRADS)
        params, state = jopt.step(make(0.1), grads, state, params, value=float(t))
    assert len(traces) == 1
    for rate in (0.1, 0.2, 0.3):  # the rate is in the state
        state = jopt.set_hyperparams(make(0.1), state, learning_rate=rate)
        params, state = jopt.step(make(0.1), GRADS, state, params, value=1.0)
    assert len(traces) == 1
    jopt.step(make(0.5), GRADS, state, params, value=1.0)
    assert len(traces) == 2


def test_functions_go_to_the_transformation_and_are_not_traced() -> None:
    """A line search asks for the loss itself."""
    calls = []

    def update(updates: Any, state: Any, params: Any, *, value_fn: Any) -> Any:
        calls.append(value_fn)
        value = value_fn(params)
        return jax.tree.map(lambda g: -value * g, updates), state

    tx = jopt.GradientTransformation(lambda params: (), update)
    for _ in range(3):
        params, _ = jopt.step(tx, GRADS, (), PARAMS, value_fn=loss, other=1.0)
    assert calls == [loss]
    value = sum(np.sum(wide(p) ** 2) for p in PARAMS.values())
    for name, p in PARAMS.items():
        np.testing.assert_allclose(params[name], p - value * GRADS[name], rtol=1e-6)


def test_a_target_network_moves_by_a_fraction() -> None:
    new = {"w": jnp.array([1.0, jnp.float32(1e-6)]), "frozen": None, "h": jnp.ones(1)}
    old = {
        "w": jnp.array([0.0, 1.0]),
        "frozen": jnp.ones(1),
        "h": jnp.zeros(1, jnp.bfloat16),
    }
    found = jopt.incremental_update(new, old, 0.1)
    np.testing.assert_allclose(found["w"], [0.1, 0.9 + 1e-7], rtol=1e-6)
    assert found["h"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["frozen"], old["frozen"])
    # The ends are exact, whatever the other number is.
    huge = {"w": jnp.array([3e38, -1e-30])}
    for step_size, exact in ((1.0, huge), (0.0, {"w": jnp.array([0.3, 1e-30])})):
        ends = jopt.incremental_update(huge, {"w": jnp.array([0.3, 1e-30])}, step_size)
        np.testing.assert_array_equal(ends["w"], exact["w"])
    traced = jax.jit(jopt.incremental_update)(new, old, 0.1)
    np.testing.assert_allclose(traced["w"], found["w"], rtol=1e-6)


def test_a_target_network_is_replaced_in_every_nth_step() -> None:
    new, old = {"w": jnp.full(1, jnp.nan)}, {"w": jnp.ones(1)}
    replace = jax.jit(lambda t: jopt.periodic_update(new, old, t, 3)["w"][0])
    assert [bool(jnp.isnan(replace(t))) for t in range(7)] == [
        t % 3 == 0 for t in range(7)
    ]
    old = {"w": jnp.zeros(1, jnp.bfloat16), "frozen": jnp.zeros(1)}
    new = {"w": jnp.array([0.5]), "frozen": None}
    for t, expected in ((0, 0.5), (1, 0.0)):
        found = jopt.periodic_update(new, old, t, 3)
        assert found["w"].dtype == jnp.bfloat16
        assert (float(found["w"][0]), float(found["frozen"][0])) == (expected, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: jopt.incremental_update(p, p, 1.5),
            r"step_size must be in \[0, 1\]",
        ),
        (lambda p: jopt.periodic_update(p, p, 1, 0), "update_period must be >= 1"),
        (lambda p: jopt.incremental_update(p, {"v": p["w"]}, 0.5), "old"),
        (lambda p: jopt.incremental_update(p, {"w": jnp.ones(3)}, 0.5), "'w'"),
    ],
)
def test_a_wrong_target_update_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call({"w": jnp.ones(2)})


def test_a_step_hashes_the_recipe_of_its_transformation_once() -> None:
    class Rate:
        hashes = 0

        def __call__(self, step: Any) -> float:
            return 0.1

        def __hash__(self) -> int:
            Rate.hashes += 1
            return 1

    tx, params = jopt.sgd(Rate()), jnp.ones(2)
    state = tx.init(params)
    jopt.step(tx, params, state, params)
    hashes = Rate.hashes
    jopt.step(tx, params, state, params)
    assert Rate.hashes == hashes


def test_a_step_looks_at_the_type_of_an_array_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tx, params = jopt.sgd(0.1), {f"w{i}": jnp.ones(2) for i in range(20)}
    state = tx.init(params)
    jopt.step(tx, params, state, params)  # compiles

    def refuse(leaf: Any) -> bool:
        raise AssertionError("a leaf was looked at")

    for slow in ("_is_float0", "can_move"):
        monkeypatch.setattr(tree_checks, slow, refuse)
    jopt.step(tx, params, state, params)


def test_a_donating_step_updates_every_array_in_its_own_memory() -> None:
    leaf = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    tx = jopt.adamw(1e-3)
    state = jax.eval_shape(tx.init, leaf)
    args = ((tx, (), False), leaf, leaf, state, {})
    memory = fused._donating_step.lower(*args).compile().memory_analysis()
    assert memory.temp_size_in_bytes < leaf.size
