"""A state in the host's memory gives the numbers of one in the device's."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.sharding import (
    fetched,
    on_host,
    put_back,
    state_shardings,
    step_layers,
    zero1,
)


WITHOUT_ROW = {"on_host": "a place, which changes no number"}
TX = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-2))
KINDS = {memory.kind for memory in jax.devices()[0].addressable_memories()}
pytestmark = pytest.mark.skipif("pinned_host" not in KINDS, reason="no pinned memory")


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def arrays() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = {"bias": (4, 64), "kernel": (4, 32, 64)}
    return {n: jnp.asarray(rng.normal(size=x), jnp.float32) for n, x in shapes.items()}


def kinds(state: Any) -> set[str | None]:
    """The memories of the arrays that are large."""
    return {x.sharding.memory_kind for x in jax.tree.leaves(state) if x.size >= 4096}


def stepped(tx: Any, params: Any, state: Any) -> Any:
    updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
    return jopt.apply_updates(params, updates), state


def test_the_state_stays_on_the_host_and_the_numbers_are_the_same() -> None:
    on = mesh()
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    tx = on_host(zero1(TX, on))
    expected, found = (params, TX.init(params)), (params, tx.init(params))
    assert kinds(found[1]) == {"pinned_host"}
    whole, part = (jax.jit(functools.partial(stepped, x)) for x in (TX, tx))
    for _ in range(2):
        expected, found = whole(*expected), part(*found)
    assert kinds(found[1]) == {"pinned_host"}
    mu = found[1]["scale_by_adam"].mu["kernel"]
    assert mu.sharding.is_equivalent_to(
        NamedSharding(on, P(None, "data"), memory_kind="pinned_host"), 3
    )
    assert kinds(found[0]) == kinds(fetched(found[1])) == kinds(params)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(x), y, rtol=1e-6, atol=1e-6)


def test_shardings_with_a_memory_are_those_of_a_compiled_init() -> None:
    on = mesh()
    params = jax.device_put(arrays(), NamedSharding(on, P()))
    where = state_shardings(TX, params, zero_axis="data", memory_kind="pinned_host")
    state = jax.jit(TX.init, out_shardings=where)(params)
    assert kinds(state) == {"pinned_host"}

    @functools.partial(jax.jit, out_shardings=(None, where))
    def step(params, state):
        new, fresh = stepped(TX, params, fetched(state))
        return new, put_back(fresh, state)

    _, after = step(params, state)
    assert kinds(after) == {"pinned_host"}


def test_layers_are_stepped_one_at_a_time_where_they_lie() -> None:
    tx, params = jopt.adamw(1e-2), arrays()
    grads = jax.tree.map(jnp.sin, params)
    large = jnp.ones((4, 64, 64))
    params, grads = {**params, "large": large}, {**grads, "large": large}
    state = jax.jit(jax.vmap(on_host(tx).init))(params)
    assert kinds(state["scale_by_adam"].mu["large"]) == {"pinned_host"}
    found, after = jax.jit(step_layers, static_argnums=0)(
        on_host(tx), grads, state, params
    )
    assert kinds(after["scale_by_adam"].mu["large"]) == {"pinned_host"}
    expected, _ = jopt.step(tx, grads, tx.init(params), params)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_what_is_on_the_device_is_not_moved() -> None:
    state = TX.init(arrays())
    assert (
        fetched(state)["scale_by_adam"].mu["kernel"]
        is (state["scale_by_adam"].mu["kernel"])
    )
    text = str(jax.make_jaxpr(functools.partial(stepped, on_host(TX)))(arrays(), state))
    assert "device_put" not in text


def test_it_is_a_value() -> None:
    tx = on_host(jopt.adam(0.1))
    assert tx == on_host(jopt.adam(0.1))
    assert jopt.from_config(jopt.to_config(tx)) == tx
    shapes = jax.eval_shape(arrays)
    assert jax.tree.structure(tx.init(shapes)) == jax.tree.structure(
        jopt.adam(0.1).init(shapes)
    )


def test_parameters_that_are_not_stacked_are_refused_by_name() -> None:
    params = {"layers": jnp.ones((3, 4)), "scale": jnp.ones(2)}
    tx = jopt.sgd(0.1)
    with pytest.raises(ValueError, match="'layers': 3, 'scale': 2"):
        step_layers(tx, params, tx.init(params), params)
