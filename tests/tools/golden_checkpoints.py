"""Checkpoints that this version wrote, for every later one to restore.

`python -m tests.tools.golden_checkpoints NAME` writes them to
tests/checkpoint/golden/NAME.

Never write a folder again that is there: people have such checkpoints. A version that
writes other ones adds a folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.checkpoint import save


FOLDER = Path(__file__).parents[1] / "checkpoint" / "golden"
FORMS = ("run", "run.npz", "run.safetensors", "run.msgpack")


def recipe() -> jopt.GradientTransformation:
    adam = jopt.adamw(jopt.tunable(1e-3), weight_decay=0.1, nu_dtype="bfloat16")
    return jopt.chain(
        jopt.clip_by_global_norm(1.0), jopt.accumulate(adam, 2), jopt.params_ema(0.9)
    )


def numbered(tree: Any) -> Any:
    """Every element its place in its array, and as much more as its array's place."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [
        jnp.asarray(np.arange(x.size).reshape(x.shape) + i, x.dtype)
        for i, x in enumerate(leaves)
    ]
    return treedef.unflatten(arrays)


def contents() -> tuple[Any, Any]:
    params = {
        "dense": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))},
        "half": jnp.zeros(4, jnp.bfloat16),
    }
    return numbered((params, recipe().init(params)))


def main(folder: Path) -> None:
    params, state = contents()
    for form in FORMS:
        save(
            folder / form,
            params=params,
            opt_state=state,
            tx=recipe(),
            step=7,
            rng={"dropout": jax.random.key(3)},
            metadata={"epoch": 2},
        )


if __name__ == "__main__":
    main(FOLDER / sys.argv[1])
