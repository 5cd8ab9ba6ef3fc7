"""Slots in formats: the engine loads, rounds and keeps them like any other."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jopt
from jopt.core.slots import zeros
from jopt.storage.formats import Encoded
from jopt.values import arguments


BLOCKS = ["float8_e4m3", "int8", "int4"]
rng = np.random.default_rng(0)
PARAMS = {
    "bias": jnp.ones(5),
    "kernel": jnp.asarray(rng.normal(0, 1, (64, 300)), jnp.float32),
    "second": jnp.asarray(rng.normal(0, 1, (64, 300)), jnp.float32),
}
STEPS = [
    jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.01, x.shape), jnp.float32), PARAMS
    )
    for _ in range(3)
]


def adamw(format, rate=1e-2):
    return jopt.adamw(rate, mu_dtype=format, nu_dtype=format)


def run(tx, params=PARAMS, steps=STEPS, state=None):
    state = tx.init(params) if state is None else state
    for g in steps:
        params, state = jopt.step(tx, g, state, params)
    return params, state


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(*(np.asarray(z).astype("f4") for z in (x, y)))


@pytest.mark.parametrize("format", arguments.FORMATS)
def test_a_state_keeps_its_form_and_its_bytes(format):
    tx = adamw(format)
    state = tx.init(PARAMS)
    new = jax.eval_shape(tx.update, PARAMS, state, PARAMS)[1]
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
    adam = state["scale_by_adam"]
    if format == "bfloat16_sr":
        assert adam.mu["kernel"].dtype == jnp.bfloat16
        return
    assert adam.nu.codes["kernel"].shape == (64, 300)
    blocks = {"float8_e4m3": 1, "int8": 2, "int4": 3}[format]
    assert adam.nu.scales["kernel"].shape == (64, blocks)
    assert adam.nu.codes["bias"].dtype == jnp.float32
    assert adam.nu.scales["bias"] is None
    form = zeros(format, divides=True).stored_shapes
    assert form((64, 300)).scales == adam.nu.scales["kernel"].shape
    assert form((5,)) == Encoded((5,), None)


def test_int8_costs_two_bytes_for_both_moments():
    params = {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    state = jax.eval_shape(adamw("int8").init, params)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / 2**20
    assert 2.03 < size < 2.04


@pytest.mark.parametrize("format", arguments.FORMATS)
def test_how_a_step_is_run_does_not_matter_to_its_bits(format):
    tx = adamw(format)
    by_step = run(tx)

    def body(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (jopt.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *STEPS)
    start = PARAMS, tx.init(PARAMS)
    by_scan = jax.jit(lambda: jax.lax.scan(body, start, stacked)[0])()
    assert_equal(by_scan[1]["scale_by_adam"], by_step[1]["scale_by_adam"])
    # Another place in a chain, and another order of the leaves.
    alone = jopt.scale_by_adam(mu_dtype=format, nu_dtype=format)
    others = {name: PARAMS[name] for name in ("second", "kernel")}
    state = alone.init(others)
    for g in STEPS:
        few = {name: g[name] for name in others}
        _, state = jax.jit(alone.update)(few, state)
    whole = pickle.loads(pickle.dumps(by_step[1]))["scale_by_adam"].mu
    part = state.mu
    if isinstance(part, Encoded):
        whole, part = whole.codes, part.codes
    assert_equal({name: whole[name] for name in others}, part)


def test_leaves_slots_and_steps_are_rounded_by_different_bits():
    tx = jopt.trace(0.0, accumulator_dtype="bfloat16_sr")
    same = {name: jnp.full((64, 64), 1.001) for name in ("a", "b")}
    _, first = tx.update(same, tx.init(same))
    _, second = tx.update(same, first)
    found = [first.trace["a"], first.trace["b"], second.trace["a"]]
    for i, x in enumerate(found):
        assert abs(float(x.astype("f4").mean()) - 1.001) < 1e-3
        assert all((x != y).mean() > 0.15 for y in found[:i])


def test_a_state_without_a_count_gets_one():
    tx = jopt.sgd(0.1, momentum=0.9, accumulator_dtype="int8")
    state = run(tx)[1]["trace"]
    assert state._fields == ("trace", "count") and state.count == 3
    assert_equal(pickle.loads(pickle.dumps(state)), state)
    bare = jopt.sgd(0.1, momentum=0.9, accumulator_dtype="bfloat16").init(PARAMS)
    assert bare["trace"]._fields == ("trace",)


# The test of bitsandbytes: parameters that start each step alike.
@pytest.mark.parametrize("format, most", [("int8", 6e-5), ("float8_e4m3", 1.2e-4)])
def test_fifty_steps_stay_near_those_of_float32(format, most):
    tx, exact = adamw(format, 1e-3), jopt.adamw(1e-3)
    start = {"w": jnp.asarray(rng.normal(0, 0.1, (16, 1024)), jnp.float32)}

    def body(carry, key):
        params, state, exact_state = carry
        g = {"w": 0.01 * jax.random.normal(key, (16, 1024))}
        u, state = tx.update(g, state, params)
        right, exact_state = exact.update(g, exact_state, params)
        params = jopt.apply_updates(params, right)
        return (params, state, exact_state), jnp.abs(u["w"] - right["w"]).mean()

    keys = jax.random.split(jax.random.key(0), 50)
    carry = start, tx.init(start), exact.init(start)
    (_, state, right), errors = jax.jit(lambda: jax.lax.scan(body, carry, keys))()
    assert errors.max() < most
    for slot, name in [(zeros(format), "mu"), (zeros(format, divides=True), "nu")]:
        x = slot.whole(getattr(state["scale_by_adam"], name))["w"]
        y = getattr(right["scale_by_adam"], name)["w"]
        assert (jnp.abs(x - y) > 3e-3 + 1e-3 * jnp.abs(y)).sum() < 20


@pytest.mark.parametrize("format", ["bfloat16_sr", "int8"])
def test_some_rows_are_rounded_as_they_are_among_all_rows(format):
    tx = jopt.scale_by_adam(mu_dtype=format, nu_dtype=format)
    table = {"table": jnp.ones((100, 64))}
    rows = jnp.asarray(rng.normal(0, 1, (3, 64)), jnp.float32)
    ids = jnp.array([70, 2, 31])
    sparse = {"table": jopt.RowSparse(ids, rows, 100)}
    dense = {"table": jnp.zeros((100, 64)).at[ids].set(rows)}
    state = tx.init(table)
    u, of_rows = tx.update(sparse, state, table)
    right, of_all = tx.update(dense, state, table)
    np.testing.assert_array_equal(u["table"].todense()[ids], right["table"][ids])
    assert_equal(of_rows, of_all)


def test_a_flat_table_in_blocks_has_no_rows():
    tx = jopt.scale_by_adam(nu_dtype="int8")
    table = jnp.ones(8192)
    g = jopt.RowSparse(jnp.array([3]), jnp.ones(1), 8192)
    with pytest.raises(TypeError, match="blocks of several rows"):
        tx.update(g, tx.init(table), table)


def test_a_step_that_is_skipped_keeps_every_code():
    tx = jopt.skip_nonfinite(adamw("int8"))
    params, state = run(tx)
    bad = jax.tree.map(lambda g: g.at[0].set(jnp.inf), STEPS[0])
    new_params, new = jopt.step(tx, bad, state, params)
    assert_equal(new_params, params)
    assert_equal(new.inner_state, state.inner_state)


def test_complex_leaves_are_kept_as_they_are():
    params = {"w": jnp.ones((64, 300), jnp.complex64)}
    tx = adamw("int8")
    _, state = run(tx, params, [params])
    assert state["scale_by_adam"].mu.codes["w"].dtype == jnp.complex64
    assert state["scale_by_adam"].mu.scales["w"] is None
    assert state["scale_by_adam"].nu.codes["w"].dtype == jnp.uint8


def test_scalars_and_readouts_see_numbers_not_codes():
    tx, exact = jopt.prodigy(mu_dtype="int8", nu_dtype="int8"), jopt.prodigy()
    np.testing.assert_allclose(run(tx)[0]["kernel"], run(exact)[0]["kernel"], atol=1e-5)
    tx = jopt.chain(
        jopt.sgd(0.1), jopt.params_ema(0.5, accumulator_dtype="bfloat16_sr")
    )
    params, state = run(tx)
    averaged = jopt.eval_params(tx, state, params)["kernel"]
    np.testing.assert_allclose(averaged, params["kernel"], atol=0.02)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda f: jopt.params_ema(0.9, accumulator_dtype=f), "the slot 'ema' holds"),
        (lambda f: jopt.madgrad(0.1, s_dtype=f), "the slot 's' holds parameters"),
        (lambda f: jopt.muon(0.1, ns_dtype=f), "with the shapes of the parameters"),
        (lambda f: jopt.lookahead(jopt.sgd(0.1), slow_dtype=f), "the slot 'slow' hol"),
        (
            lambda f: jopt.scale_by_adam(nu_dtype=f + "_"),
            "of the formats 'bfloat16_sr'",
        ),
    ],
)
def test_a_format_that_cannot_be_is_an_early_error(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make("int8")


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("format", arguments.FORMATS)
def test_eight_devices_have_the_bits_and_shardings_of_one(kind, format):
    tx = adamw(format)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    specs = {
        "bias": PartitionSpec(),
        "kernel": PartitionSpec("x"),  # whole blocks on each device
        "second": PartitionSpec(None, "y"),  # 150 columns
    }
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = jax.device_put(PARAMS, shardings)
    state = jax.jit(tx.init)(params)
    many = run(tx, params, jax.device_put(STEPS, [shardings] * 3), state)
    assert_equal(many, run(tx))
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(many[1]), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
    mu = many[1]["scale_by_adam"].mu
    for name, sharding in shardings.items():
        codes = (mu.codes if isinstance(mu, Encoded) else mu)[name]
        assert codes.sharding.is_equivalent_to(sharding, codes.ndim)
    if isinstance(mu, Encoded):
        scales = mu.scales["kernel"]
        assert scales.sharding.is_equivalent_to(shardings["kernel"], 2)


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ""])
@pytest.mark.parametrize("format", ["float8_e4m3", "int4"])
def test_a_run_continues_from_the_codes_in_a_checkpoint(tmp_path, suffix, format):
    tx, path = adamw(format), tmp_path / f"run{suffix}"
    params, state = run(tx, steps=STEPS[:2])
    jopt.checkpoint.save(path, params=params, opt_state=state, tx=tx)
    restored = jopt.checkpoint.restore(path, params=PARAMS, tx=tx)
    assert_equal(restored.opt_state, state)
    there = run(tx, restored.params, STEPS[2:], restored.opt_state)
    assert_equal(there, run(tx))


def test_laws_hold_for_a_slot_in_blocks():
    tx = jopt.sgd(0.01, momentum=0.9, accumulator_dtype="int8")
    params = {"w": PARAMS["kernel"], "b": PARAMS["bias"]}
    jopt.testing.check(tx, params, only=["checkpoints", "memory", "*jit*"])
