"""Runs of psgd_jax with jopt's random numbers, for tests/algorithms/test_psgd.py.

    python -m tests.tools.psgd path/to/psgd_jax

writes tests/algorithms/golden/psgd.npz: for each run the parameters after each step,
one row a step. It needs a checkout of evanatyourservice/psgd_jax (be95524), flax,
optax and chex.
"""

from __future__ import annotations

import itertools
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.algorithms import test_psgd


def load(checkout: Path) -> Any:
    """The authors' module, which balances in the precision of the factors."""
    text = (checkout / "psgd_jax" / "kron.py").read_text()
    # The norms of the factors are rounded to float32, which would hide six digits.
    narrow = "for q in Q], dtype=jnp.float32"
    unused = "transform, clipping, numerics"  # a module that optax has no longer
    assert narrow in text and unused in text
    text = text.replace(narrow, "for q in Q]").replace(unused, "transform, numerics")
    module: Any = types.ModuleType("kron")
    exec(compile(text, "kron.py", "exec"), vars(module))
    return module


def run(kron: Any, **options: Any) -> np.ndarray:
    """The parameters after each step."""
    params, grads = test_psgd.problem()
    share = options.pop("preconditioner_update_probability")
    if callable(share):  # its steps count from 1
        options["preconditioner_update_probability"] = lambda t: share(t - 1)
    else:
        options["preconditioner_update_probability"] = share
    tx = kron.kron(test_psgd.RATE, **options)
    shapes = [params[n].shape for n in sorted(params)]
    fits = [
        (balance, [draw(place, shape) for place, shape in enumerate(shapes)])
        for balance, draw in itertools.islice(
            test_psgd.draws(test_psgd.SEED), len(grads)
        )
    ]
    balances, noise = iter([x for x, _ in fits]), (v for _, vs in fits for v in vs)

    def uniform(key: Any) -> Any:
        return 0.0 if next(balances) else 1.0

    def normal(key: Any, shape: Any, dtype: Any) -> Any:
        return jnp.asarray(next(noise), dtype)

    rows = []
    p: Any = jax.tree.map(jnp.asarray, params)
    state = tx.init(p)
    # Without jit a conditional runs one branch, so that numbers are drawn in fits only.
    with (
        jax.disable_jit(),
        mock.patch.object(jax.random, "uniform", uniform),
        mock.patch.object(jax.random, "normal", normal),
    ):
        for g in grads:
            updates, state = tx.update(jax.tree.map(jnp.asarray, g), state, p)
            p = optax.apply_updates(p, updates)
            rows.append(np.concatenate([np.ravel(p[n]) for n in sorted(p)]))
    return np.stack(rows)


def main(checkout: str) -> None:
    """Write the file."""
    kron = load(Path(checkout))
    runs: dict[str, Any] = {
        name: run(kron, **options) for name, options in test_psgd.RUNS.items()
    }
    test_psgd.GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(test_psgd.GOLDEN, **runs)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(*sys.argv[1:])
