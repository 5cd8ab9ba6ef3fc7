"""jopt against optax, interleaved in one run: ``python -m tests.benchmarks.steps``.

Times are medians of pairs of runs and depend on the machine; bytes do not. Nothing here
is pass or fail: what must hold exactly is in test_compilation.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jopt


WARMUP, TOTAL = 100, 10_000


def gpt2_small() -> dict[str, Any]:
    """The shapes of GPT-2 small: 148 leaves, 124 million parameters."""
    d = 768

    def norm() -> dict[str, Any]:
        return {"scale": jnp.ones(d), "bias": jnp.zeros(d)}

    def dense(n: int, m: int) -> dict[str, Any]:
        return {"kernel": jnp.full((n, m), 0.02), "bias": jnp.zeros(m)}

    block = {
        "ln_1": norm,
        "attn": lambda: dense(d, 3 * d),
        "proj": lambda: dense(d, d),
        "ln_2": norm,
        "fc": lambda: dense(d, 4 * d),
        "out": lambda: dense(4 * d, d),
    }
    blocks = {
        f"h{i}": {name: make() for name, make in block.items()} for i in range(12)
    }
    embed = {"wte": jnp.full((50257, d), 0.02), "wpe": jnp.full((1024, d), 0.02)}
    return {**embed, **blocks, "ln_f": norm()}


def equal_leaves(n: int, shape: tuple[int, ...]) -> dict[str, jax.Array]:
    return {f"layer_{i}": jnp.full(shape, 0.02) for i in range(n)}


def adamw(library: Any) -> Any:
    return library.adamw(1e-3, weight_decay=0.1)


def clip_adamw(library: Any) -> Any:
    return library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-3))


def recipe(library: Any) -> Any:
    schedule = library.warmup_cosine_decay_schedule(0.0, 1e-3, WARMUP, TOTAL)
    return library.chain(library.clip_by_global_norm(1.0), library.adamw(schedule))


def compiled_step(library: Any, tx: Any, params: Any) -> Any:
    """A donated, compiled step ``(params, state, grads) -> (params, state)``."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


def interleaved(
    ours: Callable[[], None], theirs: Callable[[], None], rounds: int
) -> tuple[float, float]:
    """Median seconds of each; the two take turns, so the machine's noise hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for function in (ours, theirs):
        function()
    for _ in range(rounds):
        for function, seen in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            seen.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def stepper(
    library: Any, make: Callable[[Any], Any], params: Any
) -> Callable[[], None]:
    tx = make(library)
    compiled = compiled_step(library, tx, params)
    grads = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), params)
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def run() -> None:
        carry[:] = compiled(*carry, grads)
        jax.block_until_ready(carry)

    return run


def tracer(library: Any, make: Callable[[Any], Any], params: Any) -> Callable[[], None]:
    state = jax.eval_shape(make(library).init, params)

    def run() -> None:
        jax.clear_caches()
        tx = make(library)

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = tx.update(grads, state, params)
            return library.apply_updates(params, updates), state

        jax.jit(step).lower(params, state, params)

    return run


def eager(library: Any, make: Callable[[Any], Any], params: Any) -> Callable[[], None]:
    tx = make(library)
    state = tx.init(params)

    def run() -> None:
        updates, _ = tx.update(params, state, params)
        jax.block_until_ready(library.apply_updates(params, updates))

    return run


def temporary_bytes(library: Any, make: Callable[[Any], Any], params: Any) -> int:
    compiled = compiled_step(library, make(library), params)
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    print(f"{'':42}{'jopt':>10}{'optax':>10}{'ratio':>8}{'target':>8}")

    def row(name: str, times: tuple[float, float], target: float) -> None:
        ours, theirs = (1e3 * t for t in times)
        ratio = ours / theirs
        print(
            f"{name:42}{ours:10.2f}{theirs:10.2f}{ratio:8.2f}{target:8.2f}", flush=True
        )

    libraries = (jopt, optax)
    big = gpt2_small()
    for name, make, target in [
        ("adamw step, GPT-2 small [ms]", adamw, 1.05),
        ("clip + adamw + warmup-cosine step [ms]", recipe, 0.60),
    ]:
        row(name, interleaved(*(stepper(x, make, big) for x in libraries), 15), target)
    ours, theirs = (temporary_bytes(x, recipe, big) / 1e6 for x in libraries)
    print(
        f"{'  its temporary memory [MB]':42}{ours:10.2f}{theirs:10.2f}{'':8}{'<= 2':>8}"
    )
    del big
    many = equal_leaves(1000, (64, 64))
    times = interleaved(*(tracer(x, clip_adamw, many) for x in libraries), 3)
    row("clip + adamw trace + lower, 1,000 leaves [ms]", times, 0.40)
    few = equal_leaves(100, (64, 64))
    times = interleaved(*(eager(x, adamw, few) for x in libraries), 15)
    row("adamw without jit, 100 leaves [ms]", times, 0.25)


if __name__ == "__main__":
    main()
