"""jopt's Muon against optax's, interleaved: ``python -m tests.benchmarks.muon``.

Two hundred matrices of 64 x 64, where batching pays, and those of GPT-2 small, where
the products are large enough by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import jopt
from tests.benchmarks.steps import (
    compiled_step,
    equal_leaves,
    interleaved,
    stepper,
    temporary_bytes,
)


LIBRARIES = (jopt, optax)


def muon(library: Any) -> Any:
    """The same direction in both, for optax's nesterov is another."""
    if library is jopt:
        return jopt.muon(0.02, nesterov=False, adam_learning_rate=1e-3)
    return optax.contrib.muon(0.02, nesterov=False, adam_learning_rate=1e-3)


def gpt2_matrices(layers: int) -> dict[str, jax.Array]:
    shapes = {"attn": (768, 2304), "proj": (768, 768), "fc": (768, 3072)}
    shapes |= {"out": (3072, 768)}
    return {
        f"h{i}_{name}": jnp.full(shape, 0.02)
        for i in range(layers)
        for name, shape in shapes.items()
    }


def compiler(library: Any, params: Any) -> Callable[[], None]:
    def run() -> None:
        jax.clear_caches()
        compiled_step(library, muon(library), params)

    return run


def main() -> None:
    print(f"{'':42}{'jopt':>10}{'optax':>10}{'ratio':>8}{'target':>8}")

    def row(name: str, ours: float, theirs: float, target: float) -> None:
        numbers = f"{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}{target:8.2f}"
        print(f"{name:42}{numbers}", flush=True)

    many = equal_leaves(200, (64, 64))
    few = gpt2_matrices(layers=1)
    for name, params, rounds, targets in [
        ("200 of 64 x 64", many, 15, (0.5, 0.3, 0.5)),
        ("4 of GPT-2 small", few, 5, (1.05, 1.0, 0.5)),
    ]:
        times = interleaved(*(stepper(x, muon, params) for x in LIBRARIES), rounds)
        row(f"muon step, {name} [ms]", *(1e3 * t for t in times), targets[0])
        times = interleaved(*(compiler(x, params) for x in LIBRARIES), 3)
        row("  trace and compile [s]", *times, targets[1])
        memory = (temporary_bytes(x, muon, params) / 1e6 for x in LIBRARIES)
        row("  temporary memory [MB]", *memory, targets[2])


if __name__ == "__main__":
    main()
