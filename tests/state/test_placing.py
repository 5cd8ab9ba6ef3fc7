"""Restored arrays are where the parameters are, in memory of their own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from tests.state.test_state_dict import assert_same_bits, filled


def buffers(state: Any) -> list[int]:
    """Where the shards of an Adam state's moments are in memory."""
    own = state["scale_by_adam"]
    return [
        shard.data.unsafe_buffer_pointer()
        for x in jax.tree.leaves((own.mu, own.nu))
        for shard in x.addressable_shards
    ]


def test_the_state_is_where_the_parameters_are_and_can_be_donated() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    one = {"b": jnp.ones(64), "w": jnp.ones((64, 4))}
    spread = {
        "b": jax.device_put(one["b"], NamedSharding(mesh, P())),
        "w": jax.device_put(one["w"], NamedSharding(mesh, P("data"))),
    }
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), spread
    )
    tx = jopt.adam(1e-2)
    host = filled(tx.init(one))
    on_eight = jopt.state_dict(jopt.load_state_dict(tx, spread, host))
    twice = jax.jit(lambda s: jax.tree.map(lambda x: x + x, s), donate_argnums=0)
    third = jax.device_put(one, jax.devices()[3])
    rows = [(spread, host), (shapes, host), (one, host), (one, on_eight)]
    for params, flat in [*rows, (third, on_eight), (third, host)]:
        state = jopt.load_state_dict(tx, params, flat)
        assert_same_bits(jopt.state_dict(state), host)
        for slot in (state["scale_by_adam"].mu, state["scale_by_adam"].nu):
            for name, x in slot.items():
                assert x.sharding.is_equivalent_to(params[name].sharding, x.ndim)
        count = state["scale_by_adam"].count
        assert count.devices() == params["b"].sharding.device_set
        before = buffers(state)
        assert set(buffers(twice(state))) == set(before)
        assert len(set(before)) == len(before)
        assert all(x.is_deleted() for x in jax.tree.leaves(state))
    assert not any(x.is_deleted() for x in on_eight.values())
    np.testing.assert_array_equal(
        on_eight["scale_by_adam/mu/w"], host["scale_by_adam/mu/w"]
    )


def test_the_state_is_spread_like_parameters_of_an_explicit_mesh() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    tx = jopt.chain(jopt.adam(1e-2), jopt.params_ema(0.9))
    with jax.set_mesh(mesh):
        params = jax.device_put(np.ones((16, 4)), NamedSharding(mesh, P("data")))
        flat = filled(tx.init(params))
        rules = [jopt.Reset("^params_ema/")]
        restored = jopt.load_state_dict(tx, params, flat)
        renewed = jopt.load_state_dict(tx, params, flat, migrate=rules)
        expected = jax.tree.map(jax.typeof, jax.jit(tx.init)(params))
    assert jax.tree.map(jax.typeof, restored) == expected
    assert jax.tree.map(jax.typeof, renewed) == expected
