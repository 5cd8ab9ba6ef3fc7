"""jopt, optax, Keras and torch in turns: ``python -m tests.benchmarks.steps``.

It measures how long a step takes and everything before it (tracing, lowering,
compiling), what it keeps in memory, and the bandwidth of the machine. By default that
is what docs/benchmarks.md shows; `--docs` writes it there. Keras and torch take part if
they are installed (`pip install 'jopt[parity]'`).

Times are medians and depend on the machine; bytes do not. Nothing here is pass or fail:
what must hold exactly is in test_roofline.py and test_compilation.py. With all who can
take part, AdamW on GPT-2 small needs about 12 GB of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import gc
import importlib.metadata
import importlib.util
import inspect
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.benchmarks import report
from tests.benchmarks.recipes import (
    RECIPES,
    TREES,
    Recipe,
    filled,
    fused,
    of_jopt,
    of_optax,
    pair,
)


GRADIENT = 1e-3
FEW = 10_000_000  # parameters, so that a step without jit is not about memory
REST = {
    "sgd",
    "adafactor, unscaled",
    "muon",
    "muon, bfloat16",
    "muon, gram",
    "soap",
    "psgd_kron",
    "ademamix",
    "amsgrad",
}
SOME = ["sgd+momentum", "adamw", "clip+adamw+cosine", "lion", "adafactor"]
PLAN = {
    "gpt2_small": [name for name in RECIPES if name not in REST],
    "leaf_64m": SOME,
    "leaves_100": ["adamw"],
    "leaves_1000": ["adamw", "clip+adamw+cosine"],
    "matrices_200": ["muon", "soap", "psgd_kron"],
    # Not by default.
    "leaves_3000": ["clip+adamw+cosine"],
    "block": ["muon", "muon, bfloat16", "muon, gram", "soap", "psgd_kron"],
    "blocks": ["muon", "muon, bfloat16", "muon, gram"],
    "vit": SOME,
    "scanned": SOME,
    "recommender": SOME,
}
DEFAULT = ["gpt2_small", "leaf_64m", "leaves_100", "leaves_1000", "matrices_200"]


def interleaved(*functions: Callable[[], Any], rounds: int) -> list[Any]:
    """Medians of what each returns, one or several numbers.

    They take turns, so the machine's noise hits all of them.
    """
    seen: list[list[Any]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, of in zip(functions, seen, strict=True):
            of.append(function())
    return [np.median(of, axis=0).tolist() for of in seen]


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """The function, which now returns how many seconds it took."""

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(function())
        return time.perf_counter() - start

    return run


# How each peer makes a step of a recipe on a tree.


@dataclasses.dataclass
class Step:
    """A step of JAX.

    Attributes:
      function: Takes parameters, state and gradients, and returns the first two.
      shapes: Those of its arguments.
      start: Makes its arguments, but for the gradients, which are never changed.
      alone: Whether the function compiles itself where it is called outside of jit.
      every: The number of calls to a change of the parameters.
      around: A context to trace it in.
    """

    function: Callable[..., Any]
    shapes: tuple[Any, Any, Any]
    start: Callable[[], list[Any]]
    alone: bool = False
    every: int = 1
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def phases(self) -> tuple[float, float, float]:
        """Seconds of tracing, lowering and compiling, as if for the first time."""
        jax.clear_caches()
        # A new function, or JAX would have it still.
        jitted = jax.jit(lambda *args: self.function(*args), donate_argnums=(0, 1))
        times = [time.perf_counter()]
        with self.around():
            traced = jitted.trace(*self.shapes)
        times.append(time.perf_counter())
        lowered = traced.lower()
        times.append(time.perf_counter())
        self.compiled = lowered.compile()
        times.append(time.perf_counter())
        trace, lower, compile_ = np.diff(times)
        return trace, lower, compile_

    def runner(self, grads: Any) -> Callable[[], tuple[float, float]]:
        """Seconds until a call returns, and until it is done."""
        carry = self.start()
        call = self.function if self.alone else self.compiled

        def run() -> tuple[float, float]:
            called = done = 0.0
            for _ in range(self.every):
                start = time.perf_counter()
                carry[:] = call(*carry, grads)
                called += time.perf_counter() - start
                jax.block_until_ready(carry)
                done += time.perf_counter() - start
            return called / self.every, done / self.every

        run()
        return run

    def unjitted(self, grads: Any) -> Callable[[], float]:
        carry = self.start()
        run = timed(lambda: self.function(*carry, grads))
        run()
        return run


def _step(function: Any, tx: Any, shapes: Any, recipe: Recipe, alone: bool = False):
    return Step(
        function,
        (shapes, jax.eval_shape(tx.init, shapes), shapes),
        lambda: [(params := filled(shapes)), tx.init(params)],
        alone,
        recipe.every,
    )


def with_jopt(recipe: Recipe, shapes: Any) -> Step:
    tx = of_jopt(recipe)
    return _step(pair(jopt, tx), tx, shapes, recipe)


def with_jopt_step(recipe: Recipe, shapes: Any) -> Step:
    tx = of_jopt(recipe)
    return _step(fused(tx), tx, shapes, recipe, alone=True)


def with_native_kernels(recipe: Recipe, shapes: Any) -> Step:
    step = dataclasses.replace(with_jopt_step(recipe, shapes), alone=False)
    return dataclasses.replace(step, around=jopt.native_kernels)


def with_optax(recipe: Recipe, shapes: Any) -> Step | None:
    import optax

    tx = of_optax(recipe)
    return tx and _step(pair(optax, tx), tx, shapes, recipe)


def with_keras(recipe: Recipe, shapes: Any) -> Step | None:
    if not recipe.keras:
        return None
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    scope = {**vars(keras.optimizers), **vars(keras.optimizers.schedules)}
    optimizer = eval(recipe.keras, scope)
    leaves = jax.tree.leaves(shapes)

    def built():
        """Its variables, which a step donates: they are gone after the first one."""
        variables = [keras.Variable(jnp.full(x.shape, 0.02)) for x in leaves]
        optimizer.build(variables)
        return [
            [x.value for x in variables],
            [x.value for x in optimizer.variables],
        ]

    def step(params, state, grads):
        grads = jax.tree.leaves(grads)
        return optimizer.stateless_apply(state, grads, params)

    start = built()
    state = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in start[1]]
    found = Step(step, (leaves, state, shapes), lambda: start, every=recipe.every)
    return found


@dataclasses.dataclass
class TorchStep:
    """A step of torch. What it compiles, it compiles in its first steps."""

    function: Callable[[], Any]
    every: int = 1
    first: float = 0.0

    def runner(self, grads: Any) -> Callable[[], tuple[float, float]]:
        run = timed(lambda: [self.function() for _ in range(self.every)])
        self.first = run()
        return lambda: (took := run() / self.every, took)


def with_torch(how: str) -> Callable[[Recipe, Any], TorchStep | None]:
    """torch's ``foreach`` or ``fused``, where an optimizer has it."""

    def make(recipe: Recipe, shapes: Any) -> TorchStep | None:
        if not recipe.torch:
            return None
        import torch

        leaves = jax.tree.leaves(shapes)
        params = [torch.full(x.shape, 0.02) for x in leaves]
        for p in params:
            p.grad = torch.full_like(p, GRADIENT)

        def clipped(optimizer: Any, max_norm: float) -> Any:
            def step():
                torch.nn.utils.clip_grad_norm_(params, max_norm, foreach=True)
                optimizer.step()

            return SimpleNamespace(step=step)

        def of(kind: Any) -> Any:
            return lambda *args, **kwargs: kind(params, *args, **{how: True}, **kwargs)

        scope = {
            name: of(kind)
            for name, kind in vars(torch.optim).items()
            if inspect.isclass(kind) and how in inspect.signature(kind).parameters
        }
        try:
            return TorchStep(eval(recipe.torch, {"clipped": clipped, **scope}).step)
        except NameError:
            return None

    return make


def with_library_of_torch(name: str) -> Callable[[Recipe, Any], TorchStep | None]:
    """An optimizer of another library; heavyball compiles in its first steps."""

    def make(recipe: Recipe, shapes: Any) -> TorchStep | None:
        call = getattr(recipe, name)
        if not call:
            return None
        import torch

        library = importlib.import_module(name)
        # Each step has to have a gradient of its own, for heavyball takes it away.
        params = [torch.full(x.shape, 0.02) for x in jax.tree.leaves(shapes)]
        grads = [torch.full_like(p, GRADIENT) for p in params]

        def of(kind: Any) -> Any:
            return lambda *args, **kwargs: kind(params, *args, **kwargs)

        classes = {n: x for n, x in vars(library).items() if inspect.isclass(x)}
        optimizer = eval(call, {n: of(x) for n, x in classes.items()})

        def step():
            for p, g in zip(params, grads, strict=True):
                p.grad = g.clone()
            optimizer.step()

        return TorchStep(step, recipe.every)

    return make


LIBRARIES_OF_TORCH = ["heavyball", "pytorch_optimizer"]
PEERS: dict[str, Callable[[Recipe, Any], Any]] = {
    "jopt": with_jopt,
    "jopt.step": with_jopt_step,
    "jopt native": with_native_kernels,
    "optax": with_optax,
    "keras": with_keras,
    "torch foreach": with_torch("foreach"),
    "torch fused": with_torch("fused"),
    **{name: with_library_of_torch(name) for name in LIBRARIES_OF_TORCH},
}


# The measurement.


def bandwidth(n: int = 64_000_000) -> dict[str, float]:
    """Bytes per second that the machine moves at most."""
    a, b = jnp.ones(n), jnp.ones(n)
    add = jax.jit(lambda a, b: a + 0.5 * b, donate_argnums=0)
    held, x, y = [a], np.ones(n, np.float32), np.ones(n, np.float32)

    def in_place():
        held[0] = add(held[0], b)
        return held[0]

    runs = {
        "a + s b in place": (timed(in_place), 12 * n),
        "copy of numpy": (timed(lambda: np.copyto(y, x)), 8 * n),
    }
    return {
        name: moved / min(run() for _ in range(12))
        for name, (run, moved) in runs.items()
    }


def measure(tree: str, recipe: str, peers: list[str], rounds: int) -> list[dict]:
    """A row of numbers for each peer that has the recipe; seconds and bytes."""
    shapes = TREES[tree].shapes()
    made = {name: PEERS[name](RECIPES[recipe], shapes) for name in peers}
    made = {name: step for name, step in made.items() if step}
    rows = {n: {"tree": tree, "recipe": recipe, "peer": n} for n in made}
    compiled = {name: step for name, step in made.items() if isinstance(step, Step)}
    found = interleaved(
        *(step.phases for step in compiled.values()), rounds=TREES[tree].compiles
    )
    for (name, step), seconds in zip(compiled.items(), found, strict=True):
        rows[name] |= zip(("trace", "lower", "compile"), seconds, strict=True)
        memory = step.compiled.memory_analysis()
        rows[name]["temporary"] = memory.temp_size_in_bytes
        # Arguments and results, which share memory where it is donated, and more.
        rows[name]["peak"] = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
    grads = filled(shapes, GRADIENT)
    runs = [step.runner(grads) for step in made.values()]
    for name, seconds in zip(made, interleaved(*runs, rounds=rounds), strict=True):
        rows[name] |= zip(("dispatch", "step"), seconds, strict=True)
        step = made[name]
        if name == "heavyball":  # the other one compiles nothing
            rows[name]["compile"] = step.first - step.every * rows[name]["step"]
    del runs
    if TREES[tree].count() < FEW:
        eager = [name for name in ("jopt", "optax") if name in made]
        runs = [made[name].unjitted(grads) for name in eager]
        for name, seconds in zip(eager, interleaved(*runs, rounds=rounds), strict=True):
            rows[name]["unjitted"] = seconds
    return [{k: _short(x) for k, x in row.items()} for row in rows.values()]


def _short(x: Any) -> Any:
    return float(f"{x:.4g}") if isinstance(x, float) else x


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    libraries = ["jax", "optax", "keras", "torch", *LIBRARIES_OF_TORCH, "numpy"]
    installed = [x for x in libraries if importlib.util.find_spec(x)]
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    models = [x.partition(": ")[2] for x in lines if x.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": models[0] if models else "unknown processor",
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
        "versions": {
            "jopt": jopt.__version__,
            **{name: importlib.metadata.version(name) for name in installed},
        },
    }


def main() -> None:
    """Measure, print the tables, and keep them where the arguments say."""
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.steps",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="recipes: " + ", ".join(RECIPES),
    )
    add = parser.add_argument
    add("--recipes", nargs="+", choices=RECIPES, metavar="RECIPE", help="only these")
    add("--trees", nargs="+", choices=["all", *PLAN], default=DEFAULT)
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="only these")
    add("--rounds", type=int, default=9, help="how often a step runs; 9 by default")
    add("--out", type=Path, help="a folder for steps.json and steps.png")
    add("--docs", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()

    trees = PLAN if "all" in arguments.trees else arguments.trees
    peers = []
    for name in arguments.peers:
        library = name.split()[0].split(".")[0]
        of_torch = library in ("torch", *LIBRARIES_OF_TORCH)
        if of_torch and jax.default_backend() != "cpu":
            print(f"{name} does not take part: it is measured on a CPU only")
        elif importlib.util.find_spec(library):
            peers.append(name)
        else:
            print(f"{name} does not take part: {library} is not installed")
    found = {**machine(), "rounds": arguments.rounds, "bandwidth": bandwidth()}
    found["rows"] = []
    try:
        for tree in trees:
            for recipe in arguments.recipes or PLAN[tree]:
                rows = measure(tree, recipe, peers, arguments.rounds)
                found["rows"] += rows
                times = [f"{x['peer']} {1e3 * x['step']:.4g} ms" for x in rows]
                print(f"{tree}, {recipe}:", ", ".join(times), flush=True)
                gc.collect()
    except KeyboardInterrupt:
        print("stopped: what was measured so far is kept")
    # The machine may have been slower before.
    for name, x in bandwidth().items():
        found["bandwidth"][name] = max(x, found["bandwidth"][name])
    for row in found["rows"]:
        row["bandwidth"] = max(found["bandwidth"].values())
    print("\n" + report.steps(found))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "steps.json").write_text(json.dumps(found, indent=1) + "\n")
        report.picture(found, arguments.out / "steps.png")
    if arguments.docs:
        report.keep("steps", report.with_kept(found))


if __name__ == "__main__":
    main()
