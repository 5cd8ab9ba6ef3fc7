"""How steps of `bf16_params` are compiled, for a CPU, an H100 and a TPU v5e.

`python -m tests.benchmarks.narrow` prints the bytes that a step of AdamW moves, those
that it keeps beyond its arrays, per parameter, and how often it rounds; see traffic.py
for the compilers. Nothing is run.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jopt
from jopt.wrappers.narrow_params import KEPT
from tests.benchmarks import traffic


NOTHING = re.compile(r" subtract\((%[\w.-]+), \1\)")
# What must move: the parameter in and out, the gradient, two moments in and out.
FLOOR = 2 + 2 + 2 + 16


def floor(kind: str) -> int:
    """The bytes per parameter that a step of AdamW must move."""
    kept = KEPT.get(kind)
    return FLOOR + (2 * jnp.dtype(kept).itemsize if kept else 0)


def compiled(f: Callable[..., Any], *arguments: Any, name: str) -> Any:
    """The function, compiled for a device; the first two arguments are donated."""
    sharding = jax.sharding.SingleDeviceSharding(traffic.device(name))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments
    )
    donated = (0, 1)[: len(arguments)]
    return jax.jit(f, donate_argnums=donated).lower(*shapes).compile()


def facts(kind: str, name: str, *shape: int) -> dict[str, float]:
    """What a step of one matrix moves and keeps, and how XLA rounds."""
    inner = jopt.adamw(1e-3)
    tx = jopt.bf16_params(inner, kind) if kind in KEPT else inner  # type: ignore[arg-type]
    params = {"w": jax.ShapeDtypeStruct(shape, jnp.bfloat16)}

    def step(params, state, grads):
        return jopt.step(tx, grads, state, params, donate=True)

    state = jax.eval_shape(tx.init, params)
    made = compiled(step, params, state, params, name=name)
    text = made.as_text()
    return {
        "moved": sum(traffic.traffic(text)) / math.prod(shape),
        "temporary": made.memory_analysis().temp_size_in_bytes / math.prod(shape),
        "rounded": len(re.findall(r"= \S+ reduce-precision\(", text)),
        "nothing": len(NOTHING.findall(text)),
    }


def of_casts(name: str) -> int:
    """How many differences with themselves are made of an error by casts alone."""

    def error(x):
        return x - x.astype(jnp.bfloat16).astype(jnp.float32)

    shape = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    return len(NOTHING.findall(compiled(error, shape, name=name).as_text()))


def measure(name: str) -> dict[str, Any]:
    """All facts from one compiler, here."""
    found: dict[str, Any] = {x: facts(x, name, 8192, 8192) for x in ("nearest", *KEPT)}
    # Columns that are not whole tiles of a TPU: XLA has their kernel.
    of_xla = {
        f"{x}, by XLA": facts(x, name, 8192, 8200) for x, kept in KEPT.items() if kept
    }
    return found | of_xla | {"casts": of_casts(name)}


def measured(name: str) -> dict[str, Any]:
    """The same in a process with the environment of the compiler."""
    return traffic.answer(name, "narrow", "--one", name)


def main() -> None:
    """Print the facts of each compiler that is installed."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.narrow")
    parser.add_argument("--one", choices=traffic.COMPILERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    for name in filter(traffic.installed, traffic.COMPILERS):
        for kind, row in measured(name).items():
            of = kind.partition(",")[0]
            print(name, kind, row, f"(floor {floor(of)})" if kind != "casts" else "")


if __name__ == "__main__":
    main()
