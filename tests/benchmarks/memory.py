"""What a step with less memory takes: ``python -m tests.benchmarks.memory``.

The recipes of low_precision.py on the tree of GPT-2 small, with 124 million parameters.
A step is compiled for this machine's CPU, an H100 and a TPU v5e; see traffic.py for the
compilers. What its arrays and temporaries take at the same time is exact, and so are
the bytes that it moves. On the CPU all steps are run in turns. ``--docs`` writes
docs/precision.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jopt
from tests.benchmarks import traffic
from tests.benchmarks.low_precision import PAGE, RECIPES, Recipe
from tests.benchmarks.recipes import TREES, filled
from tests.benchmarks.report import table
from tests.benchmarks.steps import interleaved, timed
from tests.tools.pages import write


KEPT = Path(__file__).with_suffix(".json")
TREE = TREES["gpt2_small"]
ROUNDS = 5


def step_of(recipe: Recipe) -> tuple[Callable[..., Any], tuple[Any, Any, Any]]:
    """A step that donates parameters and state, and the shapes that it takes."""
    tx = recipe.make(1e-3)
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(recipe.dtype)), TREE.shapes()
    )

    def step(params, state, grads):
        return jopt.step(tx, grads, state, params, donate=True)

    return step, (params, jax.eval_shape(tx.init, params), params)


def compiled(recipe: Recipe, name: str) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(traffic.device(name))
    step, shapes = step_of(recipe)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    return jax.jit(step, donate_argnums=(0, 1)).lower(*shapes).compile()


def facts(recipe: Recipe, name: str) -> dict[str, float]:
    """Bytes per parameter that a compiled step holds at most, and moves."""
    step = compiled(recipe, name)
    memory = step.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    moved = sum(traffic.traffic(step.as_text()))
    return {"held": held / TREE.count(), "moved": moved / TREE.count()}


def measured(name: str) -> dict[str, Any]:
    """The facts of each recipe from a compiler, in a process of its own."""
    return traffic.answer(name, "memory", "--one", name)


def times() -> dict[str, float]:
    """Seconds of a step on this machine's CPU, all in turns."""

    def runner(recipe):
        _, (shapes, *_) = step_of(recipe)
        call, tx = compiled(recipe, "CPU"), recipe.make(1e-3)
        params = filled(shapes)
        carry, grads = [params, tx.init(params)], filled(shapes, 1e-3)

        def run():
            carry[:] = call(*carry, grads)
            return carry

        run()
        return timed(run)

    runs = [runner(recipe) for recipe in RECIPES.values()]
    return dict(zip(RECIPES, interleaved(*runs, rounds=ROUNDS), strict=True))


def report(found: dict[str, Any]) -> str:
    """The table of the page."""
    names = [name for name in traffic.COMPILERS if name in found]
    header = ["parameters", *(f"{name} holds" for name in names)]
    header += [*(f"{name} moves" for name in names[1:]), "CPU time"]
    first = next(iter(found["times"].values()))
    rows = [
        [
            recipe,
            *(f"{found[name][recipe]['held']:.1f}" for name in names),
            *(f"{found[name][recipe]['moved']:.1f}" for name in names[1:]),
            f"{seconds / first:.1f}",
        ]
        for recipe, seconds in found["times"].items()
    ]
    return table(header, rows) + "\n"


def main() -> None:
    """Print the table, and with ``--docs`` write it."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.memory")
    parser.add_argument("--docs", action="store_true", help="write docs/precision.md")
    parser.add_argument("--one", choices=traffic.COMPILERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        rows = {name: facts(x, arguments.one) for name, x in RECIPES.items()}
        print(json.dumps(rows))
        return
    jax.config.update("jax_platforms", "cpu")  # the others only compile
    found: dict[str, Any] = {
        name: measured(name) for name in traffic.COMPILERS if traffic.installed(name)
    }
    found["times"] = times()
    print(report(found))
    if arguments.docs:
        missing = set(traffic.COMPILERS) - set(found)
        if missing:
            parser.error(f"the page shows all compilers, but not {sorted(missing)}")
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
        write(PAGE, "memory", "tests.benchmarks.memory --docs", report(found))


if __name__ == "__main__":
    main()
