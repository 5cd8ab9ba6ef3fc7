"""Training with less memory: ``python -m tests.benchmarks.low_precision``.

A small GPT on Python's help texts and a convolutional network on scikit-learn's digits
are trained by AdamW, from three seeds: with float32 parameters, with bfloat16 ones that
are rounded to nearest, and with `bf16_params`. All recipes start from the same bfloat16
numbers and see the same batches. The loss is computed in float32, and gradients have
the dtype of the parameters. ``--docs`` writes docs/precision.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.inspect import RaceTask
from jopt.inspect.racing import built_in
from tests.benchmarks.arena import text
from tests.benchmarks.report import table
from tests.tools.pages import ROOT, write


PAGE = ROOT / "docs" / "precision.md"
KEPT = Path(__file__).with_suffix(".json")
SEEDS = 3


class Recipe(NamedTuple):
    """How parameters and state are kept.

    Attributes:
      make: From the learning rate, the optimizer.
      dtype: That of the parameters, and so of the gradients.
    """

    make: Callable[[Any], Any]
    dtype: str = "bfloat16"


def wrapped(rounding: Any, **formats: Any) -> Recipe:
    return Recipe(lambda rate: jopt.bf16_params(jopt.adamw(rate, **formats), rounding))


# A row of the table each; the others are compared with the first.
RECIPES = {
    "float32": Recipe(jopt.adamw, "float32"),
    "bfloat16, rounded to nearest": Recipe(jopt.adamw),
    '`bf16_params(…, "stochastic")`': wrapped("stochastic"),
    '`bf16_params(…, "ecc8")`': wrapped("ecc8"),
    '`bf16_params(…, "kahan")`': wrapped("kahan"),
    '`"stochastic"`, moments in `"bfloat16_sr"`': wrapped(
        "stochastic", mu_dtype="bfloat16_sr", nu_dtype="bfloat16_sr"
    ),
    '`"ecc8"`, moments in `"int8"`': wrapped("ecc8", mu_dtype="int8", nu_dtype="int8"),
}


class Run(NamedTuple):
    """A task, and how it is trained.

    Attributes:
      title: The head of its column.
      make: Makes the task.
      steps: How many.
      rate: The highest learning rate; it rises for a tenth of the steps, and falls to
        0 like a cosine.
      split: Whose loss is compared.
    """

    title: str
    make: Callable[[], RaceTask]
    steps: int
    rate: float
    split: str


def digits() -> RaceTask:
    """The network of the race with eight times its channels, 95,000 parameters."""

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "conv_1": built_in._layer(keys[0], 3, 3, 1, 64),
            "conv_2": built_in._layer(keys[1], 3, 3, 64, 128),
            "out": built_in._layer(keys[2], 2048, 10),
        }

    return dataclasses.replace(built_in.digits(), init=init)


RUNS = {
    "gpt": Run("GPT, held-out text", text.transformer, 200, 1e-3, "validation"),
    "digits": Run("CNN, digits of training", digits, 300, 1e-3, "train"),
}


def trained(run: Run, recipe: Recipe, task: RaceTask, steps: int) -> dict[str, Any]:
    """The loss after training from each seed, and bytes per parameter."""
    warmup = steps // 10
    rate = jopt.warmup_cosine_decay_schedule(0.0, run.rate, warmup, steps, 0.0)
    tx = recipe.make(rate)

    def loss(params, batch):
        wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        return task.loss(wide, batch, jax.random.key(0))

    def batch_of(key):
        if callable(task.train):
            return task.train(key)
        shape = (task.batch_size,)
        chosen = jax.random.randint(key, shape, 0, len(jax.tree.leaves(task.train)[0]))
        return jax.tree.map(lambda x: jnp.asarray(x)[chosen], task.train)

    def start(seed):
        params = task.init(jax.random.key(seed))
        half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        return jax.tree.map(lambda p: p.astype(recipe.dtype), half)

    @jax.jit
    def final(seed):
        params = start(seed)

        def body(carry, key):
            params, state = carry
            grads = jax.grad(loss)(params, batch_of(key))
            updates, state = tx.update(grads, state, params)
            return (jopt.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(100 + seed), steps)
        (params, _), _ = jax.lax.scan(body, (params, tx.init(params)), keys)
        return loss(params, getattr(task, run.split))

    params = jax.eval_shape(start, 0)
    kept = jax.tree.leaves((params, params, jax.eval_shape(tx.init, params)))
    count = sum(p.size for p in jax.tree.leaves(params))
    return {
        "losses": [float(final(seed)) for seed in range(SEEDS)],
        "bytes": sum(x.size * x.dtype.itemsize for x in kept) / count,
    }


def measure(tasks: list[str], part: float = 1.0) -> dict[str, Any]:
    """Train all recipes on some tasks.

    Args:
      tasks: Names of ``RUNS``.
      part: Of the steps, to try the script.
    """
    found: dict[str, Any] = {}
    for name in tasks:
        run, task = RUNS[name], RUNS[name].make()
        for recipe in RECIPES:
            begin = time.perf_counter()
            row = trained(run, RECIPES[recipe], task, round(part * run.steps))
            found.setdefault(recipe, {})[name] = row
            seconds = time.perf_counter() - begin
            print(f"{name}, {recipe}: {row} in {seconds:.0f} s", flush=True)
    return found


def report(found: dict[str, Any]) -> str:
    """The losses in a table, with what float32's seeds differ by."""

    def cell(losses):
        return f"{np.mean(losses):.4f} ± {np.std(losses, ddof=1):.4f}"

    def behind(losses, baseline):
        # From the same seeds, so that only what differs for one seed counts.
        return f"{np.mean(np.subtract(losses, baseline)):+.4f}"

    first = next(iter(found.values()))
    header = ["parameters"]
    for name in first:
        header += ["bytes", RUNS[name].title, "difference"]
    rows = []
    for recipe, of in found.items():
        cells = [recipe]
        for name, row in of.items():
            cells += [f"{row['bytes']:.1f}", cell(row["losses"])]
            cells += [behind(row["losses"], first[name]["losses"])]
        rows.append(cells)
    return table(header, rows) + "\n"


def write_page(found: dict[str, Any]) -> None:
    module = "tests.benchmarks.low_precision --docs"
    write(PAGE, "low_precision", module, report(found))


def main() -> None:
    """Print the table, and with ``--docs`` write it."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.low_precision")
    parser.add_argument("--docs", action="store_true", help="write docs/precision.md")
    parser.add_argument("--tasks", nargs="+", choices=RUNS, default=[*RUNS])
    parser.add_argument("--part", type=float, default=1.0, help="of the steps, to try")
    arguments = parser.parse_args()
    found = measure(arguments.tasks, arguments.part)
    print(report(found))
    if arguments.docs:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
        write_page(found)


if __name__ == "__main__":
    main()
