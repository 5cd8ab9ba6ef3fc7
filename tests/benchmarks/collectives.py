"""What devices send each other in a compiled training step, for an H100 or a TPU v5e.

`python -m tests.benchmarks.collectives H100` compiles steps of a small network for
eight devices, without any, and counts the exchanges of gradients and parameters: all
that are larger than one of the network's vectors. See traffic.py for the compilers.
"""

from __future__ import annotations

import collections
import json
import math
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.sharding import zero1
from tests.benchmarks import traffic


LAYERS, WIDTH, BATCH = 4, 2048, 64
KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all")
# The network's vectors have 2,048 numbers, and its matrices 4 million, in 8 parts.
LARGE = 2**17
RECIPES = {
    "adamw": (jopt.adamw(1e-3), False),
    "zero1(adamw)": (jopt.adamw(1e-3), True),
    "zero1(clip, adamw)": (
        jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3)),
        True,
    ),
    "zero1(muon)": (jopt.muon(1e-3), True),
    "zero1(muon spread)": (jopt.muon(1e-3, mesh_axis="data"), True),
    "zero1(soap spread)": (jopt.soap(1e-3, mesh_axis="data"), True),
}


def counts(text: str) -> dict[str, int]:
    """How many exchanges of large arrays a compiled module has, by kind.

    XLA for the TPU writes a reduce-scatter as an all-reduce that is fused with the
    selection of a part. It takes an exchange in steps, each fused with a product that
    runs in the meantime; all steps have the channel of the exchange.
    """
    found: collections.Counter[str] = collections.Counter()
    channels = set[str]()
    computations = re.compile(r"^(?:ENTRY )?(%[\w.-]+) [^\n]*\{\n(.*?)^\}", re.M | re.S)
    exchange = re.compile(
        rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(?:-start)?\((?:.*?channel_id=(\d+))?"
    )
    # The computation of a fusion has its name.
    for name, body in computations.findall(text):
        for shape, kind, channel in exchange.findall(body):
            if channel in channels:
                continue
            channels |= {channel} - {""}
            sizes = [
                math.prod(map(int, dims.split(",")))
                for dims in re.findall(r"\w+\[([\d,]+)\]", shape)
            ]
            if max(sizes, default=0) >= LARGE:
                found["reduce-scatter" if "reduce-scatter" in name else kind] += 1
    return dict(found)


def devices(compiler: str) -> Any:
    """Eight devices to compile for; they need not exist."""
    from jax.experimental import topologies

    if compiler == "v5e":
        return topologies.get_topology_desc("v5e:2x4", "tpu").devices
    return topologies.get_topology_desc(
        platform="cuda", target_config=traffic.H100, topology="1x1x8"
    ).devices


def loss(params: Any, x: jax.Array) -> jax.Array:
    y = x
    for i in range(LAYERS):
        y = jnp.tanh(y @ params[f"kernel_{i}"] + params[f"bias_{i}"])
    return jnp.mean((y - x) ** 2)


def measure(compiler: str) -> dict[str, Any]:
    """The exchanges and the bytes of arguments of each recipe, compiled here."""
    mesh = Mesh(np.array(devices(compiler)), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())
    shapes = {f"kernel_{i}": (WIDTH, WIDTH) for i in range(LAYERS)}
    shapes |= {f"bias_{i}": (WIDTH,) for i in range(LAYERS)}
    params = {
        n: jax.ShapeDtypeStruct(x, jnp.float32, sharding=everywhere)
        for n, x in shapes.items()
    }
    x = jax.ShapeDtypeStruct(
        (BATCH, WIDTH), jnp.float32, sharding=NamedSharding(mesh, P("data"))
    )
    found = {}
    for name, (tx, zero) in RECIPES.items():
        if compiler == "v5e" and "soap" in name:
            continue  # a decomposition takes minutes to compile
        tx = zero1(tx, mesh, "data") if zero else tx
        with jax.set_mesh(mesh):
            made = jax.jit(tx.init).lower(params).compile()
            state = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                jax.eval_shape(tx.init, params),
                made.output_shardings,
            )

            def step(params, state, x, tx=tx):
                grads = jax.grad(loss)(params, x)
                updates, state = tx.update(grads, state, params)
                return jopt.apply_updates(params, updates), state

            compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, x)
            compiled = compiled.compile()
        memory = compiled.memory_analysis()
        found[name] = counts(compiled.as_text()) | {
            "arguments": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "params": sorted(
                {str(s.spec) for s in compiled.output_shardings[0].values()}
            ),
        }
    return found


def measured(compiler: str) -> dict[str, Any]:
    """The same, in a process with the environment that the compiler needs."""
    return traffic.answer(compiler, "collectives", compiler)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
