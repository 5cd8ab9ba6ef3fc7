"""Bytes that one whole step moves per parameter, as compiled: jopt, optax, the floor.

`python -m tests.benchmarks.traffic` compiles for this machine; with `tpu` or `gpu`
behind it, for a TPU v5e or an H100, without one (the packages libtpu, or
jax-cuda12-plugin with its libraries, have to be there). Nothing is run: each array that
an instruction of the compiled step reads or writes is counted, as is what is kept
beyond them (temporaries).
"""

import collections
import math
import os
import re
import sys

from tests.public import public


SIDE = 8192  # more than the memory on a TPU chip
# What has to move: the parameter and the state in and out, the gradient in, once. Where
# a norm of the update scales it, either what the update is made of is read again, or
# the update is written and read. Adafactor reads the gradient for its means, again for
# the norm of the update, and again for the update; and the parameter for its norm.
FLOORS = {
    "sgd(0.1)": 12,
    "sgd(0.1, 0.9)": 20,
    "adamw(0.1)": 28,
    "lion(0.1)": 20,
    "adafactor(0.1)": 24,
    "lamb(0.1)": 40,
    "ademamix(0.1)": 36,
    "schedule_free_adamw(0.1)": 28,
    "adafactor(0.1, multiply_by_parameter_scale=False)": 20,
    "chain(clip_by_global_norm(1.0), adamw(0.1))": 32,
    "amsgrad(0.1)": 36,
    "apply_if_finite(adamw(0.1), 3)": 32,
    "chain(adamw(0.1), params_ema(0.999))": 36,
}
ITEM = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2}
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota",
    "partition-id", "after-all", "conditional", "opt-barrier",
}  # fmt: skip


def traffic(text):
    """The bytes that the instructions of a compiled module's entry read and write."""
    entry = text[text.index("\nENTRY ") :]
    entry = entry[: entry.index("\n}")]
    sizes, total = {}, 0
    pattern = re.compile(
        r"^\s+(?:ROOT )?(%[\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)", re.M
    )
    for name, shape, kind, rest in pattern.findall(entry):
        sizes[name] = nbytes(shape)
        if kind in FREE or kind.endswith("-start"):
            continue
        operands = re.findall(r"%[\w.-]+", rest.split("), ")[0])
        total += sizes[name] + sum(sizes.get(x, 0) for x in operands)
    return total


def nbytes(shape):
    """The bytes of a shape, or of a tuple of them, that are in the main memory."""
    total = 0
    for dtype, dims, layout in re.findall(r"(\w+)\[([\d,]*)\](\{[^}]*\})?", shape):
        if "S(1)" not in layout:  # a TPU's vector memory is on the chip
            total += ITEM.get(dtype, 1) * math.prod(
                map(int, filter(None, dims.split(",")))
            )
    return total


def device(kind):
    """A device to compile for; it need not exist."""
    import jax
    from jax.experimental import topologies

    if kind == "cpu":
        return jax.devices("cpu")[0]
    if kind == "tpu":
        return topologies.get_topology_desc("v5e:2x2", "tpu").devices[0]
    return topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology="1x1x1"
    ).devices[0]


H100 = """gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def compiled(tx, apply_updates, at):
    """The whole donated step for one matrix."""
    import jax
    import jax.numpy as jnp

    sharding = jax.sharding.SingleDeviceSharding(at)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return apply_updates(params, updates), state

    params = {"w": jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=sharding)}
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(tx.init, params),
    )
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


def main(kind="cpu"):
    """Print the table."""
    if kind == "tpu":
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ["JAX_PLATFORMS"] = "cpu"
    elif kind == "gpu":
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = ""
        os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"
    else:
        os.environ["JAX_PLATFORMS"] = "cpu"
    import optax
    import optax.contrib

    import jopt

    at = device(kind)
    names = collections.ChainMap(vars(optax), vars(optax.contrib))
    title = f"bytes per parameter, {kind}"
    line = "{:50}{:>8}{:>6}{:>8}{:>6}{:>7}{:>7}"
    print(line.format(title, "jopt", "temp", "optax", "temp", "floor", "ratio"))
    for call, floor in FLOORS.items():
        cells, ratio = [], ""
        for library, scope in ((jopt, public(jopt)), (optax, names)):
            try:
                tx = eval(call, {}, scope)
            except NameError:
                cells += ["-", "-"]
                continue
            made = compiled(tx, library.apply_updates, at)
            moved = traffic(made.as_text()) / SIDE**2
            temp = made.memory_analysis().temp_size_in_bytes / SIDE**2
            cells += [f"{moved:.1f}", f"{temp:.1f}"]
            if library is jopt:
                ratio = f"{moved / floor:.2f}"
        print(line.format(call, *cells, floor, ratio), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
