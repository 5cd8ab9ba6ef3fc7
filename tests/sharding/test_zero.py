"""A state that is split over the devices gives the numbers of one that is not."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.sharding import state_shardings, zero1
from tests.sharding.sizes import bytes_per_device, measured


WITHOUT_ROW = {"zero1": "It needs a mesh."}
ADAMW = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-2, weight_decay=0.1))
RECIPES = {
    "adamw": ADAMW,
    "adafactor": jopt.adafactor(1e-2, min_dim_size_to_factor=16),
    "muon": jopt.muon(1e-2),
    "muon spread": jopt.muon(1e-2, mesh_axis="data"),
    "soap spread": jopt.soap(1e-2, mesh_axis="data", max_dim=64),
    "galore": jopt.galore(1e-2, rank=8),
    "schedule_free": jopt.schedule_free_adamw(1e-2),
    "partition": jopt.partition(
        {"matrix": jopt.adam(1e-2), "vector": jopt.sgd(1e-2, 0.9)},
        lambda path, x: "vector" if x.ndim == 1 else "matrix",
    ),
    "accumulate": jopt.accumulate(jopt.adam(1e-2), 2),
    "lamb": jopt.lamb(1e-2),
    "lookahead": jopt.lookahead(jopt.sgd(1e-2, 0.9), 2),
    "average": jopt.chain(jopt.skip_nonfinite(jopt.adam(1e-2)), jopt.params_ema(0.9)),
}
WHOLE = {"adafactor", "muon"}  # too small, or needed whole


def mesh(axis_type: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("data",), axis_types=(axis_type,))


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "bias": rng.normal(size=96).astype(np.float32),
        "kernel": rng.normal(size=(16, 512)).astype(np.float32),
    }


def gradients(params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.sin(3 * p), params)


def trained(tx: Any, params: Any, steps: int = 3) -> Any:
    """Parameters, those to evaluate with, and state, after some steps."""

    def step(params, state):
        updates, state = tx.update(gradients(params), state, params)
        return jopt.apply_updates(params, updates), state

    # These gradients are sharded as the parameters are, so without out_shardings the
    # compiler may do both as the state is.
    where = jax.tree.map(lambda x: getattr(x, "sharding", None), params)
    compiled = jax.jit(step, out_shardings=(where, None))
    state = tx.init(params)
    for _ in range(steps):
        params, state = compiled(params, state)
    return params, jopt.eval_params(tx, state, params, default=params), state


def close(found: Any, expected: Any, atol: float = 2e-6) -> None:
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=atol)


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers_are_those_of_the_whole_state(name: str) -> None:
    tx, on = RECIPES[name], mesh()
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    with jax.set_mesh(on):
        expected, split = trained(tx, params), trained(zero1(tx, on), params)
    close(split, expected)
    for x in jax.tree.leaves(split[:2]):
        assert x.sharding.is_fully_replicated
    found = state_shardings(tx, params, on, zero_axis="data")
    assert measured(split[2]) == bytes_per_device(split[2], found)
    whole = sum(x.nbytes for x in jax.tree.leaves(split[2]))
    assert (measured(split[2]) < 0.25 * whole) == (name not in WHOLE)


@pytest.mark.parametrize("name", ["adamw", "muon spread", "schedule_free"])
def test_with_explicit_axes_types_stay_and_numbers_are_the_same(name: str) -> None:
    tx, on = RECIPES[name], mesh(AxisType.Explicit)
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    with jax.set_mesh(on):
        expected, split = trained(tx, params), trained(zero1(tx), params)
    close(split, expected)
    found = state_shardings(tx, params, on, zero_axis="data")
    assert measured(split[2]) == bytes_per_device(split[2], found)
    for x in jax.tree.leaves(split[:2]):
        assert x.sharding.is_fully_replicated


def test_parameters_that_are_split_stay_so() -> None:
    on = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = {"bias": P(), "kernel": P(None, "model")}
    where = {n: NamedSharding(on, x) for n, x in specs.items()}
    params = jax.device_put(arrays(), where)
    expected = trained(ADAMW, arrays())
    tx = zero1(ADAMW, on, "data", specs=specs)
    split = trained(tx, params)
    close(split, expected)
    assert split[0]["kernel"].sharding.spec == P(None, "model")
    assert split[2]["scale_by_adam"].mu["kernel"].sharding.spec == P("data", "model")
    # The state of an uncompiled init lies there too, and its shardings can be asked.
    state = tx.init(params)["scale_by_adam"].mu["kernel"]
    assert state.sharding.spec == P("data", "model")
    found = state_shardings(tx, params)["scale_by_adam"].mu["kernel"]
    assert found.spec == P("data", "model")


def test_outside_jit_a_step_leaves_every_array_where_it_was() -> None:
    on = mesh()
    tx = zero1(jopt.adam(1e-2), on)
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    state = tx.init(params)
    updates, new = tx.update(gradients(params), state, params)
    for x, y in zip(*map(jax.tree.leaves, (state, new)), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(updates))
    new_params, _ = jopt.step(tx, gradients(params), state, params)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(new_params))


def test_it_is_a_value_and_its_state_is_that_of_the_inner_one() -> None:
    on, adam = mesh(), jopt.adam(1e-2)
    tx = zero1(adam, axis="data")
    assert tx == zero1(adam) != zero1(adam, axis="model")
    text = "zero1(inner=adam(learning_rate=0.01), axis='x')"
    assert repr(zero1(adam, axis="x")) == text
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert jopt.from_config(jopt.to_config(tx)) == tx
    assert zero1(adam, on) == zero1(adam, mesh())
    abstract = zero1(adam, on.abstract_mesh)
    assert pickle.loads(pickle.dumps(abstract)) == abstract
    placed = jax.device_put(jnp.ones((64, 64)), NamedSharding(on, P()))
    mu = abstract.init(placed)["scale_by_adam"].mu
    assert mu.sharding.spec == P("data")
    with pytest.raises(TypeError, match="argument 'mesh' cannot be written"):
        jopt.to_config(zero1(adam, on))
    shapes = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}
    with jax.set_mesh(on):
        state = tx.init({"w": jnp.ones((64, 64))})
    assert jax.tree.structure(state) == jax.tree.structure(adam.init(shapes))
    assert jopt.hyperparams(state)["learning_rate"] == jnp.float32(0.01)
    assert tx.init(shapes)["scale_by_adam"].mu["w"].shape == (64, 64)


def test_gradients_of_a_shard_map_are_taken_and_a_step_inside_it_is_not() -> None:
    on = mesh()
    tx = zero1(jopt.adam(1e-2), on)
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    state = tx.init(params)
    xs = jnp.ones((8, 16))

    def loss(params, x):
        return jnp.mean((x @ params["kernel"]) ** 2)

    def mean_grads(params, x):
        return jax.lax.pmean(jax.grad(loss)(params, x), "data")

    spread = jax.shard_map(
        mean_grads, mesh=on, in_specs=(P(), P("data")), out_specs=P(), check_vma=False
    )

    @jax.jit
    def step(params, state):
        return tx.update(spread(params, xs), state, params)

    updates, _ = step(params, state)
    expected, _ = jopt.adam(1e-2).update(
        jax.grad(loss)(params, xs), jopt.adam(1e-2).init(params), params
    )
    close(updates, expected)

    inside = jax.shard_map(
        lambda g: tx.update(g, state, g)[0], mesh=on, in_specs=P(), out_specs=P()
    )
    with pytest.raises(ValueError, match="'data' is split by hand in a shard_map"):
        jax.eval_shape(inside, params)


def test_a_wrong_axis_and_no_mesh_are_errors() -> None:
    with pytest.raises(ValueError, match=r"axis='x' is not an axis .* \['data'\]"):
        zero1(jopt.adam(1e-2), mesh(), "x")
    with pytest.raises(ValueError, match="no mesh: pass a mesh"):
        zero1(jopt.adam(1e-2)).init({"w": jnp.ones(2)})


@pytest.mark.parametrize("format", ["bfloat16_sr", "int8"])
def test_a_state_of_few_bits_has_the_same_bits_on_many_devices(format: str) -> None:
    tx, on = jopt.adamw(1e-2, mu_dtype=format, nu_dtype=format), mesh()
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    _, _, expected = trained(tx, arrays())
    _, _, split = trained(zero1(tx, on), params)
    for x, y in zip(*map(jax.tree.leaves, (split, expected)), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    found = state_shardings(tx, params, on, zero_axis="data")
    assert measured(split) == bytes_per_device(split, found)
    mu = split["scale_by_adam"].mu
    codes = mu.codes if format == "int8" else mu
    assert codes["kernel"].sharding.spec == P("data")
