"""A row-sparse step against the dense one: ``python -m tests.benchmarks.sparse``.

A table of a million rows of 64 numbers, of which a step touches 1024 others than the
step before, 64 of them twice; parameters and state are donated. The dense step gets
such a gradient as an array of the table's shape, made outside of what is timed. Twenty
sparse steps and one dense take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.benchmarks import report
from tests.benchmarks.steps import interleaved, timed


N, D, TOUCHED, STEPS = 1_000_000, 64, 1024, 20
TRANSFORMATIONS = {
    "adam": jopt.adam(1e-3),
    "clip + adamw": jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3)),
    "adagrad": jopt.adagrad(1e-2),
}


def gradients(steps: int) -> list[jopt.RowSparse]:
    """Each of 1024 different rows, and of 64 of them again."""
    rng, found = np.random.default_rng(0), []
    for _ in range(steps):
        ids = rng.permutation(N)[:TOUCHED]
        ids = jnp.asarray(np.concatenate([ids, ids[:64]]), jnp.int32)
        rows = jnp.asarray(rng.normal(size=(len(ids), D)), jnp.float32)
        found.append(jopt.RowSparse(ids, rows, N))
    return found


def stepper(tx: Any, grads: Sequence[Any]) -> Callable[[], float]:
    """Seconds of compiled, donated steps with these gradients."""
    params = {"table": jnp.full((N, D), 0.02)}
    kept: Any = [params, tx.init(params)]

    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = tx.update({"table": g}, state, params)
        return jopt.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def run() -> Any:
        for g in grads:
            kept[:] = compiled(*kept, g)
        return kept

    found = timed(run)
    found()
    return found


def main() -> None:
    """Measure; with ``--docs``, write docs/benchmarks.md, too."""
    grads = gradients(STEPS)
    dense = [grads[0].todense()]
    found = {}
    for name, tx in TRANSFORMATIONS.items():
        ours, theirs = interleaved(stepper(tx, grads), stepper(tx, dense), rounds=20)
        found[name] = [1e3 * ours / STEPS, 1e3 * theirs]
    print(report.sparse(found))
    if "--docs" in sys.argv:
        report.keep("sparse", found)


if __name__ == "__main__":
    main()
