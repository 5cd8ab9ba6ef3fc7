"""Bytes that one whole step moves per parameter, as compiled: jopt, optax, the floor.

`python -m tests.benchmarks.traffic` compiles each recipe for this machine's CPU and, if
their packages are installed, for an H100 and a TPU v5e, without one. Nothing is run:
each array that an instruction of the compiled step reads or writes is counted, as is
what is kept beyond them (temporaries). With `--docs` it writes docs/benchmarks.md.

The compilers, for JAX 0.10.2:

    pip install --no-deps 'libtpu==0.0.42.*'
    pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 \
      nvidia-{cublas,cuda-cupti,cuda-nvcc,cuda-nvrtc,cuda-runtime,cufft}-cu12 \
      nvidia-{cusolver,cusparse,nvjitlink}-cu12
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.benchmarks import report
from tests.benchmarks.recipes import (
    FORMATS,
    RECIPES,
    Recipe,
    equal_leaves,
    fused,
    lowered,
    of_jopt,
    of_optax,
    pair,
)


ROOT = Path(__file__).parents[2]
SIDE = 8192  # more than the memory on a TPU chip
ITEM = {
    "f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2,
    "s16": 2, "u16": 2,
}  # fmt: skip
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota",
    "partition-id", "after-all", "opt-barrier",
}  # fmt: skip
CALLS = {"call", "conditional", "while"}
INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?(%[\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)", re.M
)


def traffic(text: str) -> tuple[int, int]:
    """The bytes that the instructions of a compiled module read and write.

    Returns:
      Those that move in each step; and those of loops (one round) and branches (the
      most expensive one), which may not.
    """
    bodies = dict(
        re.findall(r"^(?:ENTRY )?(%[\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S)
    )

    def moved(computation):
        sizes, always, perhaps = {}, 0, 0
        for name, shape, kind, rest in INSTRUCTION.findall(bodies[computation]):
            sizes[name] = nbytes(shape)
            operands, _, attributes = rest.partition("), ")
            names = re.findall(r"%[\w.-]+", attributes.partition("metadata=")[0])
            inner = [moved(x) for x in names if kind in CALLS and x in bodies]
            if kind == "call":
                ((one, other),) = inner
                always, perhaps = always + one, perhaps + other
            elif kind in CALLS:
                perhaps += max(map(sum, inner))
            elif kind not in FREE and not kind.endswith("-start"):
                operands = re.findall(r"%[\w.-]+", operands)
                always += sizes[name] + sum(sizes.get(x, 0) for x in operands)
        return always, perhaps

    (entry,) = re.findall(r"^ENTRY (%[\w.-]+)", text, re.M)
    return moved(entry)


def nbytes(shape: str) -> int:
    """The bytes of a shape, or of a tuple of them, that are in the main memory."""
    total = 0
    for dtype, dims, layout in re.findall(r"(\w+)\[([\d,]*)\](\{[^}]*\})?", shape):
        if "S(1)" not in layout:  # a TPU's vector memory is on the chip
            total += ITEM.get(dtype, 1) * math.prod(
                map(int, filter(None, dims.split(",")))
            )
    return total


class Facts(NamedTuple):
    """What a compiled step moves and keeps, per parameter.

    Attributes:
      moved: Bytes that are read and written in each step.
      perhaps: Bytes in loops and branches.
      temporary: Bytes beyond arguments and results.
      copied: Bytes of donated arrays whose memory is not used again. (A number of the
        state that the step does not read, JAX drops from the arguments.)
    """

    moved: float
    perhaps: float
    temporary: float
    copied: float


def facts(
    step: Callable[..., Any], tx: Any, side: int = SIDE, sharding: Any = None
) -> Facts:
    """Compile a step for one matrix."""
    params = equal_leaves(1, side, side)
    compiled = lowered(step, tx, params, sharding).compile()
    memory = compiled.memory_analysis()
    donated = sum(
        x.size * x.dtype.itemsize
        for x in jax.tree.leaves((params, jax.eval_shape(tx.init, params)))
        if x.ndim
    )
    moved, perhaps = traffic(compiled.as_text())
    copied = max(0, donated - memory.alias_size_in_bytes)
    counts = (moved, perhaps, memory.temp_size_in_bytes, copied)
    return Facts(*(x / side**2 for x in counts))


def facts_of_parts(recipe: Recipe, zero: bool) -> Facts:
    """Compile a step for one matrix on four TPUs: facts per parameter of each.

    Args:
      recipe: What is compiled.
      zero: Whether `zero1` splits the state; else parameters and state are split.
    """
    from jax.experimental import topologies

    import jopt

    devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    kind = AxisType.Auto if zero else AxisType.Explicit
    mesh = Mesh(np.array(devices), ("data",), axis_types=(kind,))
    place = NamedSharding(mesh, PartitionSpec(*([] if zero else ["data"])))
    params = {"w": jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=place)}
    tx = of_jopt(recipe)
    axis = "data" if zero else None
    places = jopt.sharding.state_shardings(tx, params, mesh, zero_axis=axis)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(tx.init, params),
        places,
    )
    step = fused(tx)
    if zero:
        step = pair(jopt, jopt.sharding.zero1(tx, mesh, "data"))
    with jax.set_mesh(mesh):
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
        compiled = lowered.compile()
    moved, perhaps = traffic(compiled.as_text())
    counts = moved, perhaps, compiled.memory_analysis().temp_size_in_bytes, 0
    return Facts(*(4 * x / SIDE**2 for x in counts))


# Compilers. Each needs an environment from the start, and so a process.


class Compiler(NamedTuple):
    """A compiler: its module, and the environment that it needs."""

    module: str
    environment: dict[str, str]


TPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
COMPILERS = {
    "CPU": Compiler("jaxlib", {"JAX_PLATFORMS": "cpu"}),
    "H100": Compiler(
        "jax_cuda12_plugin",
        {
            "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "JAX_PLATFORMS": "",  # all that are installed, so the TPU's, too
            "XLA_FLAGS": "--xla_gpu_autotune_level=0",
            **TPU,
        },
    ),
    "v5e": Compiler("libtpu", {"JAX_PLATFORMS": "cpu", **TPU}),
}
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


def device(name: str) -> Any:
    """A device to compile for; it need not exist."""
    from jax.experimental import topologies

    if name == "CPU":
        return jax.devices("cpu")[0]
    if name == "v5e":
        return topologies.get_topology_desc("v5e:2x2", "tpu").devices[0]
    return topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology="1x1x1"
    ).devices[0]


def installed(name: str) -> bool:
    return importlib.util.find_spec(COMPILERS[name].module) is not None


def answer(name: str, module: str, *arguments: str) -> Any:
    """What a module prints last, as JSON, in a process with a compiler's environment.

    Args:
      name: The compiler's.
      module: The module, in this folder.
      *arguments: Its arguments.
    """
    run = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
        env={**os.environ, **COMPILERS[name].environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(f"compiling for {name} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def measured(name: str, libraries: str = "jopt,optax") -> dict[str, Any]:
    """The facts of each recipe from a compiler.

    Args:
      name: The compiler's.
      libraries: ``"jopt"``, or with optax; or ``"formats"``.

    Returns:
      By recipe and library; of jopt the fused step.
    """
    return answer(name, "traffic", "--one", name, "--libraries", libraries)


def measure(name: str, libraries: str) -> dict[str, Any]:
    """The same, here."""
    sharding = jax.sharding.SingleDeviceSharding(device(name))
    found: dict[str, Any] = {}
    for title, recipe in (FORMATS if libraries == "formats" else RECIPES).items():
        if not recipe.floor:
            continue
        tx = of_jopt(recipe)
        row = {"jopt": facts(fused(tx), tx, SIDE, sharding)}
        if "optax" in libraries and (theirs := of_optax(recipe)):
            import optax

            row["optax"] = facts(pair(optax, theirs), theirs, SIDE, sharding)
        found[title] = {library: x._asdict() for library, x in row.items()}
    if libraries == "formats" and name == "v5e":
        for title, zero in [("FSDP", False), ("ZeRO-1", True)]:
            facts_of_int8 = facts_of_parts(FORMATS["int8"], zero)
            found[title] = {"jopt": facts_of_int8._asdict()}
    return found


def main() -> None:
    """Print the tables, and with ``--docs`` write them."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.traffic")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--one", choices=COMPILERS, help=argparse.SUPPRESS)
    parser.add_argument("--libraries", default="jopt,optax", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.libraries)))
        return
    found = {}
    for name, compiler in COMPILERS.items():
        if installed(name):
            found[name] = measured(name)
        else:
            print(f"{name}: {compiler.module} is not installed")
    print(report.traffic(found))
    if arguments.docs:
        missing = set(COMPILERS) - set(found)
        if missing:
            parser.error(f"the page shows all compilers, but not {sorted(missing)}")
        report.keep("traffic", found)


if __name__ == "__main__":
    main()
