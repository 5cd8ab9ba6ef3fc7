"""Slots in formats of transformations that are not leafwise: kept like a rule's."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jopt
from jopt.storage.formats import is_encoded
from tests.core.test_storage_formats import assert_equal


rng = np.random.default_rng(0)


def normal(size):
    shapes = {"bias": (5,), "w": (32, 256)}
    return {n: jnp.asarray(rng.normal(0, size, s), "f4") for n, s in shapes.items()}


PARAMS, STEPS = normal(0.1), [normal(0.01) for _ in range(4)]
MESH = jax.make_mesh((8,), ("x",))
SHARDINGS = {
    "bias": NamedSharding(MESH, PartitionSpec()),
    "w": NamedSharding(MESH, PartitionSpec("x")),
}

# What is made with a format, which slots it has, and how far its steps may be from
# those of float32 as a part of their length.
MADE = {
    "muon": (lambda f: jopt.muon(0.02, mu_dtype=f), ["mu"], 0.05),
    "dion2": (lambda f: jopt.dion2(0.02, mu_dtype=f), ["mu"], 0.3),
    "soap": (
        lambda f: jopt.soap(1e-2, mu_dtype=f, nu_dtype=f, sides="smaller"),
        ["mu", "nu"],
        0.05,
    ),
    "adam_mini": (lambda f: jopt.adam_mini(1e-2, mu_dtype=f), ["mu"], 0.05),
    "accumulate": (
        lambda f: jopt.accumulate(jopt.sgd(1.0), 3, accumulator_dtype=f),
        ["acc_grads"],
        0.05,
    ),
    "ema_nesterov": (
        lambda f: jopt.ema_nesterov(jopt.sgd(1.0), decay=0.5, mu_dtype=f),
        ["mu"],
        0.05,
    ),
}


def run(tx, params=PARAMS, steps=STEPS, state=None):
    state = jax.jit(tx.init)(params) if state is None else state
    for g in steps:
        params, state = jopt.step(tx, g, state, params)
    return params, state


def distance(one, other):
    return float(jopt.global_norm(jax.tree.map(jnp.subtract, one, other)))


@pytest.fixture(scope="module", params=MADE)
def made(request):
    """A transformation with a slot in int8, and its run."""
    make, slots, most = MADE[request.param]
    tx = make("int8")
    return make, tx, slots, most, run(tx)


def test_steps_are_near_those_of_float32(made):
    make, _, _, most, (params, _) = made
    right, _ = run(make(None))
    assert 0 < distance(params, right) < most * distance(right, PARAMS)


def test_a_state_is_kept_in_codes_and_continues_from_a_checkpoint(made):
    _, tx, slots, _, last = made
    params, state = run(tx, steps=STEPS[:2])
    initial = tx.init(PARAMS)
    assert jax.tree.structure(initial) == jax.tree.structure(state)
    assert jax.tree.map(jnp.result_type, initial) == jax.tree.map(
        jnp.result_type, state
    )
    for name in slots:
        kept = [x for _, x in jopt.tree.get_all_with_path(state, name)]
        assert all(map(is_encoded, kept))
        codes = [x.codes["w"].dtype for x in kept if x.codes["w"] is not None]
        assert codes == [jnp.uint8 if name == "nu" else jnp.int8]
        assert all(
            x.codes["bias"].dtype == jnp.float32 for x in kept if x.scales["w"] is None
        )
    flat = jopt.state_dict(state)
    restored = jopt.load_state_dict(tx, PARAMS, flat)
    assert_equal(restored, state)
    assert_equal(run(tx, params, STEPS[2:], restored), last)


def test_eight_devices_have_the_codes_and_shardings_of_one(made, request):
    _, tx, slots, _, last = made
    params = jax.device_put(PARAMS, SHARDINGS)
    steps = jax.device_put(STEPS, [SHARDINGS] * len(STEPS))
    places = jopt.sharding.state_shardings(tx, params)
    state = jax.jit(tx.init, out_shardings=places)(params)
    new_params, state = run(tx, params, steps, state)
    for x, place in zip(jax.tree.leaves(state), jax.tree.leaves(places), strict=True):
        assert x.sharding.is_equivalent_to(place, x.ndim)
    assert distance(new_params, last[0]) < 1e-4 * distance(last[0], PARAMS)
    if "soap" in request.node.callspec.id:  # in a basis that products of matrices made
        return
    for name in slots:
        one, many = (jopt.tree.get_all_with_path(x, name) for x in (last[1], state))
        assert_equal(*([x for _, x in found] for found in (one, many)))


@pytest.mark.parametrize(
    "tx, slot",
    [
        (jopt.scale_by_muon(beta=0.0, mu_dtype="bfloat16_sr"), "mu"),
        (
            jopt.accumulate(jopt.sgd(1.0), 1, accumulator_dtype="bfloat16_sr"),
            "acc_grads",
        ),
    ],
    ids=["muon", "accumulate"],
)
def test_leaves_and_steps_are_rounded_by_different_bits(tx, slot):
    same = {name: jnp.full((64, 64), 1.001) for name in ("a", "b")}
    start, found = tx.init(same), []
    for _ in range(2):
        if slot == "mu":
            start = tx.update(same, start)[1]
            kept = start.mu
        else:
            kept = jopt.accumulate_grads(tx, same, start).acc_grads
            start = tx.update(same, start, same)[1]
        found += [kept["a"], kept["b"]]
    for i, x in enumerate(found):
        assert x.dtype == jnp.bfloat16
        assert abs(float(x.astype("f4").mean()) - 1.001) < 1e-3
        assert all((x != y).mean() > 0.15 for y in found[:i])


def test_numbers_that_change_are_kept_beside_the_count_of_rounding():
    tx = jopt.scale_by_muon(beta=jopt.linear_schedule(0.8, 0.9, 4), mu_dtype="int8")
    params = {"w": PARAMS["w"]}
    state = tx.init(params)
    for g in STEPS[:2]:
        _, state = tx.update({"w": g["w"]}, state)
    assert state._fields == ("mu", "count", "beta") and state.count == 2
    assert_equal(pickle.loads(pickle.dumps(state)), state)
    assert jopt.scale_by_muon().init(params)._fields == ("mu",)


@pytest.mark.parametrize("name", ["muon", "accumulate", "sgd"])
def test_a_cast_encodes_and_decodes_a_slot_and_its_count_comes_and_goes(name):
    def sgd(format):
        return jopt.sgd(0.1, momentum=0.9, accumulator_dtype=format)

    make, (slot, *_), _ = MADE.get(name, (sgd, ["trace"], None))
    plain, few = make(None), make("int8")
    flat = jopt.state_dict(run(plain, steps=STEPS[:2])[1])
    encoded = jopt.load_state_dict(
        few, PARAMS, flat, migrate=[jopt.Cast(f"{slot}/", "int8")]
    )
    assert jax.tree.structure(encoded) == jax.tree.structure(few.init(PARAMS))
    back = jopt.state_dict(
        jopt.load_state_dict(
            plain,
            PARAMS,
            jopt.state_dict(encoded),
            migrate=[jopt.Cast(f"{slot}/", "float32")],
        )
    )
    assert back.keys() == flat.keys()
    for path, x in flat.items():
        np.testing.assert_allclose(
            back[path], x, rtol=0.05, atol=1e-3 * np.abs(x).max()
        )


def test_a_gradient_that_is_skipped_leaves_every_code_of_the_sum():
    tx = jopt.accumulate(
        jopt.sgd(1.0),
        3,
        should_skip_update_fn=jopt.skip_not_finite,
        accumulator_dtype="int8",
    )
    state = tx.init(PARAMS)
    for g in STEPS[:2]:
        state = jopt.accumulate_grads(tx, g, state)
    bad = jax.tree.map(lambda g: g.at[0].set(jnp.nan), STEPS[0])
    skipped = jopt.accumulate_grads(tx, bad, state)
    assert_equal(skipped.acc_grads, state.acc_grads)
    updates, state = jopt.emit(tx, skipped)
    mean = jax.tree.map(lambda x, y: -(x + y) / 2, *STEPS[:2])
    assert distance(updates, mean) < 0.02 * distance(mean, {"bias": 0, "w": 0})
    assert not any(x.any() for x in jax.tree.leaves(state.acc_grads))


def test_a_state_of_another_dtype_is_named():
    tx, state = jopt.soap(1e-3, mu_dtype="int8"), jopt.soap(1e-3).init(PARAMS)
    with pytest.raises(TypeError, match=r"the state's mu must be codes .* jopt\.Cast"):
        tx.update(STEPS[0], state, PARAMS)
