"""`memory` counts the bytes that real arrays and the compiler have."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jopt
from jopt.inspect import device_bytes


def spread(*spec: str | None) -> NamedSharding:
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    return NamedSharding(mesh, PartitionSpec(*spec))


SHARDINGS = {
    "embed": spread("data", None),
    "kernel": spread("data", "model"),
    "bias": spread("model"),
}


def parameters(dtype: Any = jnp.float32) -> Any:
    shapes = {"embed": (64, 48), "kernel": (128, 160), "bias": (160,)}
    return {name: jnp.full(shape, 0.5, dtype) for name, shape in shapes.items()}


RECIPES = {
    "adamw": jopt.adamw(0.1, weight_decay=0.1),
    "lion": jopt.lion(0.1, mu_dtype="bfloat16"),
    "adafactor": jopt.adafactor(0.1, min_dim_size_to_factor=32),
    "muon": jopt.muon(0.1),
    "average": jopt.chain(jopt.adam(0.1), jopt.params_ema(0.9)),
    "accumulation": jopt.accumulate(jopt.sgd(0.1, momentum=0.9), 2),
}


def held(trees: Any, device: Any) -> int:
    """The bytes of real arrays on a device."""
    return sum(
        shard.data.nbytes
        for x in jax.tree.leaves(trees)
        for shard in x.addressable_shards
        if shard.device == device
    )


@pytest.mark.parametrize("name", RECIPES)
def test_bytes_are_those_of_real_arrays(name: str) -> None:
    tx, device = RECIPES[name], jax.devices()[0]
    dtype = jnp.bfloat16 if name in ("adamw", "muon") else jnp.float32
    alone = parameters(dtype)
    sharded = jax.device_put(alone, SHARDINGS)
    init = jax.jit(tx.init)
    for params, count in ((alone, 1), (sharded, 8)):
        state = init(params)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            params,
        )
        for given in (params, shapes):
            use = jopt.memory(tx, given)
            assert use.devices == count
            assert use.params == use.gradients == held(params, device)
            assert use.state == held(state, device) == sum(use.slots.values())
            assert use.total == use.params + use.gradients + use.state
    for path, found in use.slots.items():
        inside = state
        for step in path.split("/"):
            inside = inside[step] if step in inside else getattr(inside, step)
        assert found == held(inside, device), path


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("many", [False, True])
def test_temporaries_are_those_of_the_compiler(name: str, many: bool) -> None:
    tx, params = RECIPES[name], parameters()
    params = jax.device_put(params, SHARDINGS) if many else params
    use = jopt.memory(tx, params, compiled=True)
    state = jax.jit(tx.init)(params)

    def step(grads, params, state):
        updates, state = tx.update(grads, state, params)
        return jopt.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(1, 2)).lower(params, params, state)
    found: Any = lowered.compile().memory_analysis()
    # All that comes in is counted, on each device, to the byte.
    assert found.argument_size_in_bytes == use.params + use.gradients + use.state
    beyond = found.output_size_in_bytes - found.alias_size_in_bytes
    assert use.temporaries == found.temp_size_in_bytes + beyond
    assert use.total > use.params + use.gradients + use.state


def test_parameters_without_sharding_are_on_every_device_of_a_mesh() -> None:
    tx, shapes = RECIPES["adamw"], jax.eval_shape(parameters)
    alone = jopt.memory(tx, shapes)
    mesh: Any = spread().mesh
    use = jopt.memory(tx, shapes, mesh)
    assert (use.devices, use.params, use.state) == (8, alone.params, alone.state)
    mixed = shapes | {
        "embed": jax.ShapeDtypeStruct((64, 48), "float32", sharding=SHARDINGS["embed"])
    }
    of_embed = 4 * 64 * 48
    assert jopt.memory(tx, mixed).params == alone.params - of_embed * 3 // 4


def test_a_table_shows_what_is_large() -> None:
    use = jopt.memory(RECIPES["average"], jax.device_put(parameters(), SHARDINGS))
    lines = str(use).splitlines()
    assert lines[0] == "on each of 8 devices"
    assert [line.split("  ")[0] or line.split()[0] for line in lines[1:4]] == [
        *("parameters", "gradients", "state"),
    ]
    assert [line.split()[0] for line in lines[4:]] == [
        *("scale_by_adam/mu", "scale_by_adam/nu", "params_ema/ema", "the", "total"),
    ]
    assert len({len(line) for line in lines[1:]}) == 1
    assert json.loads(json.dumps(use.to_dict()))["state"] == use.state


def test_integers_and_variables_are_counted_and_have_no_gradient() -> None:
    params = {"w": jnp.ones(4), "steps": jnp.zeros(3, jnp.int32), "none": None}
    tx = jopt.selective_transform(jopt.sgd(0.1, momentum=0.9), freeze_mask="steps")
    use = jopt.memory(tx, params, compiled=True)
    assert (use.params, use.gradients) == (28, 16)
    model = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    assert jopt.memory(jopt.adam(0.1), model).params == 36
    bare = jopt.memory(jopt.sgd(0.1, momentum=0.9), jnp.ones(8))
    assert (bare.params, bare.slots["trace/trace"]) == (32, 32)


def test_an_update_gets_the_arguments_that_it_needs() -> None:
    tx, params = jopt.chain(jopt.sgd(0.1), jopt.reduce_on_plateau()), jnp.ones(8)
    with pytest.raises(TypeError, match="needs the argument 'value'"):
        jopt.memory(tx, params, compiled=True)
    value = jax.ShapeDtypeStruct((), jnp.float32)
    assert jopt.memory(tx, params, compiled=True, value=value).temporaries is not None


def test_a_description_says_what_each_device_holds() -> None:
    tx, params = RECIPES["adamw"], jax.device_put(parameters(), SHARDINGS)
    description = jopt.describe(tx, params)
    use = jopt.memory(tx, params)
    assert description.memory == use
    of = device_bytes.size
    assert f"each of 8 devices: {of(use.params)} of parameters" in str(description)
    assert f"{of(use.state)} of state" in str(description)
    assert description.to_dict()["memory"]["state"] == use.state
    assert jopt.describe(tx, parameters()).memory is None
