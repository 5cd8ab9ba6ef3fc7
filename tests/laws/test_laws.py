"""The laws of the design, for every case of the catalogue."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import chex
import flax.serialization
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.interop.flax import TrainState
from jopt.values import registry
from tests.catalogue import CASES, OPTIMIZERS, WITHOUT_ROW, Case, file_of
from tests.laws.problem import (
    as_dtype,
    draw,
    loss,
    small,
    stack,
    trajectory,
    types,
    update,
    updates_of,
)


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
# What does not depend on the options, and holds for a part if it does for the whole.
ONCE = list({case.name: case for case in reversed(CASES) if not case.part}.values())
once = pytest.mark.parametrize("case", ONCE, ids=lambda case: case.id)
each_optimizer = pytest.mark.parametrize(
    "case", [case for case in ONCE if case.is_optimizer], ids=lambda case: case.id
)
every_optimizer = pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.id)


def test_every_factory_has_a_row() -> None:
    made = {name for name in jopt.names() if _makes_transformation(name)}
    declared = {case.name for case in CASES} | set(WITHOUT_ROW)
    missing = {
        f"{name}: add a Case to CASES in {file_of(registry.factories()[name])}"
        for name in made - declared
    }
    assert not missing
    assert declared <= made


def _makes_transformation(name: str) -> bool:
    factory = registry.factories()[name]
    made = factory.__annotations__.get("return")
    is_ours = factory.__module__.startswith("jopt.")  # tests register their own
    return is_ours and made == "GradientTransformation"


# 1. A transformation is a value.


@every_case
def test_equal_recipes_are_equal_and_survive_repr_config_pickle_and_copy(
    case: Case,
) -> None:
    tx = case.make()
    again = {
        "made again": case.make(),
        "repr": eval(repr(tx), registry.factories()),
        "config": jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))),
        "pickle": pickle.loads(pickle.dumps(tx)),
        "copy": copy.deepcopy(tx),
    }
    for how, other in again.items():
        assert other == tx and hash(other) == hash(tx), how
    assert tx != jopt.chain(tx, jopt.identity())
    if case.is_optimizer:
        assert tx != case.make(learning_rate=0.123)
    # The copy is not only equal but does the same.
    params, grads = small()
    expected = update(tx, grads, tx.init(params), params)
    for other in again.values():
        found = update(other, grads, other.init(params), params)
        chex.assert_trees_all_equal(expected, found)


# 2. Transformations of the transformation.


@once
def test_jit_scan_and_vmap_give_the_numbers_of_a_loop(case: Case) -> None:
    tx = case.make()
    params, grads = draw(steps=4)
    params, grads = as_dtype(params, jnp.float32), as_dtype(grads, jnp.float32)
    state, expected = tx.init(params), []
    for g in grads:
        updates, state = update(tx, g, state, params)
        expected.append(updates)

    def body(state: Any, g: Any) -> Any:
        updates, state = update(tx, g, state, params)
        return state, updates

    def two(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.stack([x, x]), tree)

    @jax.jit
    def compiled(grads: Any, params: Any) -> Any:
        scanned = jax.lax.scan(body, tx.init(params), grads)
        first = jax.vmap(lambda g, p: update(tx, g, tx.init(p), p)[0])
        return scanned, first(two(jax.tree.map(lambda g: g[0], grads)), two(params))

    (scanned_state, scanned), first = compiled(stack(grads), params)
    close = {"rtol": 2e-5, "atol": 1e-7}
    chex.assert_trees_all_close(scanned, stack(expected), **close)
    chex.assert_trees_all_close(scanned_state, state, **close)
    chex.assert_trees_all_close(first, two(expected[0]), **close)


@once
def test_the_second_call_does_not_compile(case: Case) -> None:
    params, grads = small()
    traces = []

    @jax.jit
    def step(g: Any, state: Any, params: Any) -> Any:
        traces.append(1)
        updates, state = update(case.make(), g, state, params)
        return jopt.apply_updates(params, updates), state

    state = case.make().init(params)
    for _ in range(3):
        params, state = step(grads, state, params)
    assert len(traces) == 1


@once
def test_an_update_can_be_differentiated_where_it_is_smooth(case: Case) -> None:
    tx = case.make()
    params, grads = small()

    def total(g: Any) -> Any:
        updates, _ = update(tx, g, tx.init(params), params)
        return sum(jnp.sum(u) for u in jax.tree.leaves(updates))

    @jax.jit
    def both_ways(g: Any) -> Any:
        ones = jax.tree.map(jnp.ones_like, g)
        grad = jax.tree.leaves(jax.grad(total)(g))
        return sum(jnp.sum(x) for x in grad), jax.jvp(total, (g,), (ones,))[1]

    by_grad, jvp = both_ways(grads)
    assert jnp.isfinite(by_grad)
    np.testing.assert_allclose(by_grad, jvp, rtol=1e-3, atol=1e-5)


# 3. The state is a fixed point.


@pytest.mark.parametrize("param_dtype", ["float16", "bfloat16", "float32", "float64"])
@once
def test_types_never_change(case: Case, param_dtype: str) -> None:
    for grad_dtype in ("float16", "bfloat16", "float32"):
        _check_types(case, param_dtype, grad_dtype)


def _check_types(case: Case, param_dtype: str, grad_dtype: str) -> None:
    x64 = jax.enable_x64(True) if param_dtype == "float64" else contextlib.nullcontext()
    with x64:
        tx = case.make()
        params, grads = small(param_dtype)[0], small(grad_dtype)[1]
        state = jax.eval_shape(tx.init, params)
        assert types(tx.init(params)) == types(state)
        updates, new_state = jax.eval_shape(
            functools.partial(update, tx), grads, state, params
        )
        assert types(new_state) == types(state)
        assert types(updates) == types(grads)
        new_params = jax.eval_shape(jopt.apply_updates, params, updates)
        assert types(new_params) == types(params)


# 4. No size of gradient gives NaN or infinity.


SIZES = {  # tiny and huge, of each dtype
    "float16": (6e-8, 6e4),
    "bfloat16": (1e-30, 1e30),
    "float32": (1e-30, 1e30),
}


@once
def test_zero_tiny_and_huge_gradients_give_finite_updates(case: Case) -> None:
    tx = case.make()
    params = {dtype: small(dtype)[0] for dtype in SIZES}

    @jax.jit
    def step(grads: Any, state: Any) -> Any:
        new = {d: update(tx, grads[d], state[d], p) for d, p in params.items()}
        return {d: u for d, (u, _) in new.items()}, {d: s for d, (_, s) in new.items()}

    for size in range(3):
        grads = {}
        for dtype, sizes in SIZES.items():
            value = (0.0, *sizes)[size]
            if case.name == "trace" and dtype == "float16" and size == 2:
                value = 1e4  # the sum of three is the update, and has to fit
            grads[dtype] = jax.tree.map(
                lambda p, x=value: jnp.full_like(p, x), params[dtype]
            )
        state = {dtype: tx.init(p) for dtype, p in params.items()}
        for _ in range(3):
            updates, state = step(grads, state)
            chex.assert_tree_all_finite(updates)
            decays = case.name == "ftrl" or "decay" in case.id
            decays |= case.moves_without_gradient
            if size == 0 and not decays and case.name != "lion":
                zeros = jax.tree.map(jnp.zeros_like, updates)
                chex.assert_trees_all_equal(updates, zeros)


# 5. Low precision.


@once
def test_bfloat16_updates_are_the_float32_updates_rounded_once(case: Case) -> None:
    params, grads = long_run()
    tx = case.make()
    wide = updates_of(tx, *as_dtype((params, grads), jnp.float32))
    narrow = updates_of(tx, params, grads)
    chex.assert_trees_all_close(
        as_dtype(narrow, jnp.float32), wide, rtol=2.0**-8, atol=1e-30
    )


@functools.cache
def long_run() -> tuple[Any, Any]:
    """Parameters in bfloat16, and the gradients of 200 steps, stacked."""
    params, grads = draw(steps=200)
    grads = {name: np.stack([g[name] for g in grads]) for name in params}
    return as_dtype((params, grads), jnp.bfloat16)


@each_optimizer
def test_a_bfloat16_run_tracks_the_float32_run(case: Case) -> None:
    # Bound: 200 roundings of a parameter of size 1, each at most 2^-9, at random.
    start = {"w": jnp.linspace(-1.0, 1.0, 16)}
    tx = case.make(learning_rate=case.rate_for_descent)

    def final(dtype: Any) -> jax.Array:
        params = as_dtype(start, dtype)

        def body(carry: Any, _: Any) -> Any:
            params, state = carry
            grads = jax.tree.map(lambda p: p - jnp.asarray(0.3, p.dtype), params)
            updates, state = update(tx, grads, state, params)
            return (jopt.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (params, tx.init(params)), length=200)
        return params["w"].astype(jnp.float32)

    difference = jnp.max(jnp.abs(final(jnp.bfloat16) - final(jnp.float32)))
    assert difference < 2.0**-9 * math.sqrt(200) * 2


# 6. Buffers.


@once
def test_params_and_state_can_be_donated_right_after_init(case: Case) -> None:
    tx = case.make()
    params, grads = small()
    state = tx.init(params)
    arrays = jax.tree.leaves((params, state))
    assert len({x.unsafe_buffer_pointer() for x in arrays}) == len(arrays)

    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = update(tx, g, state, params)
        return jopt.apply_updates(params, updates), state

    donated = jax.jit(step, donate_argnums=(0, 1))
    expected = jax.jit(step)(params, state, grads)
    first = donated(params, state, grads)
    assert all(x.is_deleted() for x in arrays if x.ndim)
    chex.assert_trees_all_equal(first, expected)
    donated(*first, grads)


# 7. Unusual trees.


@once
def test_none_empty_zero_size_and_scalar_leaves_work(case: Case) -> None:
    tx = case.make()
    params = {
        "empty": {},
        "nothing": None,
        "none_there": jnp.zeros((0, 3)),
        "scalar": jnp.float32(2.0),
        "w": jnp.ones((2, 3)),
    }
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    state = tx.init(params)
    updates, new_state = update(tx, grads, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(grads)
    assert types(new_state) == types(state)
    new_params = jopt.apply_updates(params, updates)
    assert types(new_params) == types(params)
    chex.assert_tree_all_finite(new_params)
    without = {"scalar": params["scalar"], "w": params["w"]}
    if case.name != "clip_by_global_norm":
        alone, _ = update(tx, {k: grads[k] for k in without}, tx.init(without), without)
        chex.assert_trees_all_close({k: updates[k] for k in without}, alone, rtol=1e-6)


@once
def test_a_leaf_without_gradient_keeps_its_value_and_its_slots(case: Case) -> None:
    tx = case.make()
    params, grads = small()
    state = tx.init(params)
    updates, new_state = update(tx, {**grads, "bias": None}, state, params)
    assert updates["bias"] is None
    new_params = jopt.apply_updates(params, updates)
    chex.assert_trees_all_equal(new_params["bias"], params["bias"])

    def bias_slots(state: Any) -> list[jax.Array]:
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return [x for path, x in leaves if "bias" in jax.tree_util.keystr(path)]

    chex.assert_trees_all_equal(bias_slots(new_state), bias_slots(state))
    assert types(new_state) == types(state)


@pytest.mark.parametrize("tree", [{}, ()], ids=repr)
@once
def test_an_empty_tree_works(case: Case, tree: Any) -> None:
    tx = case.make()
    updates, state = update(tx, tree, tx.init(tree), tree)
    assert updates == tree
    assert types(state) == types(tx.init(tree))


@once
def test_complex_leaves_work_or_are_refused_by_name(case: Case) -> None:
    params, grads = draw(steps=5)
    rng = np.random.default_rng(1)
    params = {n: p + 1j * rng.normal(size=p.shape) for n, p in params.items()}
    grads = [{n: g + 1j * np.roll(g, 1) for n, g in tree.items()} for tree in grads]
    tx = case.make()
    narrow = as_dtype(params, jnp.complex64)
    if not case.complex_leaves:
        with pytest.raises(TypeError, match="leaf 'bias' has dtype complex64"):
            update(tx, narrow, tx.init(narrow), narrow)
        return
    found = (trajectory if case.is_optimizer else updates_of)(
        tx, narrow, as_dtype(grads, jnp.complex64)
    )
    expected = as_dtype(stack(list(case.expected(params, grads))), jnp.complex64)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


# 8. Errors.


@once
def test_wrong_trees_are_refused_with_the_path_of_the_leaf(case: Case) -> None:
    tx = case.make()
    params, grads = small()
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"'kernel'.*\(4, 3\).*\(3, 4\)"):
        update(tx, {**grads, "kernel": grads["kernel"].T}, state, params)
    with pytest.raises(ValueError, match=r"different structures.*'scalar'"):
        update(tx, {n: g for n, g in grads.items() if n != "scalar"}, state, params)
    if case.name in ("freeze", "set_to_zero"):
        return  # integers may be frozen
    with pytest.raises(TypeError, match="'bias' has dtype int32"):
        update(tx, {**grads, "bias": jnp.arange(4)}, state, params)
    with pytest.raises(TypeError, match="'bias' has dtype int32"):
        tx.init({**params, "bias": jnp.arange(4)})


@once
def test_missing_params_and_misspelt_arguments_are_refused(case: Case) -> None:
    tx = case.make()
    params, grads = small()
    state = tx.init(params)
    with pytest.raises(TypeError, match=r"'parms'.*Did you mean 'params'"):
        tx.update(grads, state, parms=params)
    if case.needs_value:
        with pytest.raises(TypeError, match="needs the argument 'value'"):
            tx.update(grads, state, params)
    told = {"value": loss(params)}
    without = _updates_or_error(lambda: update(tx, grads, state, **told)[0])
    ignored = _updates_or_error(lambda: update(tx, grads, state, los=2.0, **told)[0])
    if isinstance(without, Exception):
        assert "needs the parameters: call update(updates, state, params)" in str(
            without
        )
        assert type(ignored) is TypeError
    else:
        chex.assert_trees_all_equal(without, ignored)
        chex.assert_trees_all_equal(without, update(tx, grads, state, params)[0])


def _updates_or_error(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TypeError as error:
        return error


# 9. Hyperparameters.


def numbers_of(case: Case) -> dict[str, float]:
    """The hyperparameters of a case by name, where they are numbers."""
    factory = registry.factories()[case.name]
    defaults = {n: p.default for n, p in factory.__signature__.parameters.items()}
    given = defaults | {"learning_rate": case.learning_rate} | case.options
    numbers = {name: given[name] for name in factory.hyperparameters}
    return {name: x for name, x in numbers.items() if isinstance(x, float)}


with_numbers = pytest.mark.parametrize(
    "case", [case for case in ONCE if numbers_of(case)], ids=lambda case: case.id
)


@with_numbers
def test_a_constant_a_tunable_and_a_schedule_give_the_same_numbers(case: Case) -> None:
    params, grads = draw(steps=4)
    params, grads = as_dtype(params, jnp.float32), as_dtype(grads, jnp.float32)
    numbers = numbers_of(case)
    tunable = case.make(**{n: jopt.tunable(x) for n, x in numbers.items()})
    schedule = case.make(**{n: jopt.constant_schedule(x) for n, x in numbers.items()})
    state = tunable.init(params)
    assert types(state) == types(schedule.init(params))
    derived = {"scale", "effective_learning_rate"} - numbers.keys()
    held = jopt.hyperparams(state).items()
    found = sorted(float(x) for name, x in held if name not in derived)
    np.testing.assert_allclose(found, sorted(numbers.values()), rtol=1e-6)
    if "learning_rate" in numbers:
        rate = numbers["learning_rate"]
        with_schedule = case.make(learning_rate=jopt.constant_schedule(rate))
        assert types(case.make().init(params)) == types(with_schedule.init(params))

    @jax.jit
    def all_three(params: Any, grads: list[Any]) -> Any:
        made = (case.make(), tunable, schedule)
        return [updates_of(tx, params, grads) for tx in made]

    expected, *found = all_three(params, grads)
    for updates in found:
        chex.assert_trees_all_close(updates, expected, rtol=3e-5, atol=1e-9)


@each_optimizer
def test_a_schedule_does_what_setting_the_numbers_by_hand_does(case: Case) -> None:
    params, grads = draw(steps=3)
    params, grads = as_dtype(params, jnp.float32), as_dtype(grads, jnp.float32)
    numbers = numbers_of(case)
    # Slowly, so that every number stays in its range.
    ramps = {n: jopt.linear_schedule(x, 0.0, 100) for n, x in numbers.items()}
    expected = updates_of(case.make(**ramps), params, grads)

    tx = case.make(**{n: jopt.tunable(x) for n, x in numbers.items()})
    state, step, found = tx.init(params), jax.jit(functools.partial(update, tx)), []
    start = jopt.hyperparams(state)
    for t, g in enumerate(grads):
        now = {name: x * (1 - t / 100) for name, x in start.items()}
        state = jopt.set_hyperparams(tx, state, **now)
        updates, state = step(g, state, params)
        found.append(updates)
    chex.assert_trees_all_close(stack(found), expected, rtol=3e-5, atol=1e-8)


# 10. Inside other things; jopt's own wrappers are in test_composition.py.


@each_optimizer
def test_it_gives_the_same_numbers_in_frameworks(case: Case) -> None:
    params, grads = draw(steps=4)
    params, grads = as_dtype(params, jnp.float32), as_dtype(grads, jnp.float32)
    # optax's wrappers and Flax's TrainState do not pass a value on.
    train_state = (
        TrainState if case.needs_value else flax.training.train_state.TrainState
    )
    everywhere = (
        {}
        if case.needs_value
        else {"optax.chain": optax.chain(optax.identity(), case.make())}
    )
    expected = trajectory(case.make(), params, grads)
    close = {"rtol": 1e-5, "atol": 1e-7}
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        for where, tx in everywhere.items():
            found = trajectory(tx, params, grads)
            chex.assert_trees_all_close(found, expected, custom_message=where, **close)
        state = train_state.create(apply_fn=None, params=params, tx=case.make())
        model = nnx.Dict({name: nnx.Param(p) for name, p in params.items()})
        optimizer = nnx.Optimizer(model, case.make(), wrt=nnx.Param)
        for g in grads:
            told = {"value": loss(state.params)} if case.needs_value else {}
            state = state.apply_gradients(grads=g, **told)
            as_params = nnx.Dict({name: nnx.Param(x) for name, x in g.items()})
            optimizer.update(model, nnx.state(as_params), **told)
    last = jax.tree.map(lambda x: x[-1], expected)
    chex.assert_trees_all_close(state.params, last, **close)
    chex.assert_trees_all_close(nnx.to_pure_dict(nnx.state(model)), last, **close)


# 11. The numbers.


@every_case
def test_twenty_steps_equal_the_numpy_twin_in_float64(case: Case) -> None:
    params, grads = draw()
    with jax.enable_x64(True):
        tx = case.make()
        found = (trajectory if case.is_optimizer else updates_of)(
            tx, as_dtype(params, jnp.float64), as_dtype(grads, jnp.float64)
        )
        expected = stack(list(case.expected(params, grads)))
        chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


@once
def test_twenty_steps_equal_the_numpy_twin_in_float32(case: Case) -> None:
    params, grads = as_dtype(draw(), jnp.float32)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, grads))
    found = (trajectory if case.is_optimizer else updates_of)(
        case.make(), params, grads
    )
    expected = as_dtype(stack(list(case.expected(*exact))), jnp.float32)
    chex.assert_trees_all_close(found, expected, rtol=3e-5, atol=3e-6)


# 12. Save and restore; that it equals never stopping is in test_resume.py.


@pytest.mark.parametrize("how", ["flax msgpack", "orbax"])
def test_every_state_passes_through_other_libraries_checkpoints(
    how: str, tmp_path: Any
) -> None:
    params, _ = small()

    def numbered(x: jax.Array) -> jax.Array:
        return jnp.asarray(np.arange(x.size).reshape(x.shape) % 100, x.dtype)

    states = {
        case.id: jax.tree.map(numbered, case.make().init(params)) for case in CASES
    }
    zeros = jax.tree.map(jnp.zeros_like, states)
    if how == "orbax":
        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", states)
            checkpointer.wait_until_finished()
            restored = checkpointer.restore(tmp_path / "state", zeros)
    else:
        data = flax.serialization.to_bytes(states)
        restored = flax.serialization.from_bytes(zeros, data)
        restored = jax.tree.map(jnp.asarray, restored)
    assert types(restored) == types(states)
    chex.assert_trees_all_equal(restored, states)


# 13. Sharding.


@once
def test_sharded_params_give_sharded_state_and_the_same_numbers(case: Case) -> None:
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(rng.normal(size=(16, 4)), jnp.float32),
        "scale": jnp.asarray(rng.normal(size=(8,)), jnp.float32),
    }
    grads = jax.tree.map(lambda p: 0.3 * p + 0.1, params)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    tx = case.make()

    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = update(tx, g, state, params)
        return jopt.apply_updates(params, updates), state

    alone = (params, tx.init(params))
    spread = jax.device_put(params, rows)
    shapes = {p.shape for p in params.values()}  # a slot may be smaller
    for init in (tx.init, jax.jit(tx.init)):
        state = init(spread)
        for leaf in jax.tree.leaves(state):
            if leaf.shape in shapes:
                assert leaf.sharding.is_equivalent_to(rows, leaf.ndim)
    sharded = (spread, state)
    for _ in range(3):
        alone = jax.jit(step)(*alone, grads)
        sharded = jax.jit(step)(*sharded, jax.device_put(grads, rows))
    for leaf in jax.tree.leaves(sharded):
        if leaf.shape in shapes:
            assert leaf.sharding.is_equivalent_to(rows, leaf.ndim)
    chex.assert_trees_all_close(sharded, alone, rtol=1e-5, atol=1e-7)


@once
def test_sharding_is_part_of_the_types_where_the_user_makes_it_so(case: Case) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = NamedSharding(mesh, P("data"))
    params = {"kernel": jnp.ones((16, 4)), "scale": jnp.ones(8)}

    def with_sharding(tree: Any) -> Any:
        return jax.tree.map(lambda x: str(jax.typeof(x)), tree)

    with jax.set_mesh(mesh):
        params = jax.device_put(params, rows)
        tx = case.make()
        state = tx.init(params)
        updates, new_state = jax.eval_shape(
            functools.partial(update, tx), params, state, params
        )
        assert with_sharding(new_state) == with_sharding(state)
        assert with_sharding(jax.eval_shape(tx.init, params)) == with_sharding(state)
        assert with_sharding(updates) == with_sharding(params)
    slots = [x for x in jax.tree.leaves(state) if x.shape in ((16, 4), (8,))]
    assert all("@data" in str(jax.typeof(x)) for x in slots)


# 14. It optimizes.


@every_optimizer
def test_it_descends_a_quadratic_and_rosenbrock(case: Case) -> None:
    def quadratic(p: Any) -> Any:
        return jnp.sum(jnp.array([1.0, 10.0]) * (p["x"] - 0.5) ** 2)

    def rosenbrock(p: Any) -> Any:
        a, b = p["x"]
        return (1 - a) ** 2 + 100 * (b - a**2) ** 2

    for f, rate, share in [(quadratic, 1.0, 0.02), (rosenbrock, 0.01, 0.3)]:
        tx = case.make(learning_rate=case.rate_for_descent * rate)
        params = {"x": jnp.array([-1.0, 1.5])}

        def body(carry: Any, _: Any, tx: Any = tx, f: Any = f) -> Any:
            params, state = carry
            value, g = jax.value_and_grad(f)(params)
            updates, state = update(tx, g, state, params, value=value)
            return (jopt.apply_updates(params, updates), state), None

        (final, _), _ = jax.lax.scan(body, (params, tx.init(params)), length=1500)
        assert f(final) < share * f(params), f.__name__
