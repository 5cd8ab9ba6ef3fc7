"""Train everything in one program: straight, or stopped and gone on with.

    python -m tests.tools.resume straight FOLDER   10 steps; a checkpoint in between
    python -m tests.tools.resume resume FOLDER     from each form of it to the end

Every optimizer of the table, and every wrapper around adam, trains parameters of its
own, in one `jopt.partition`: so there is one program to compile and one state to save.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt import checkpoint
from jopt.testing.problem import loss
from tests.catalogue import OPTIMIZERS


FORMS = ("orbax", "file.msgpack", "file.npz", "file.safetensors")
WRAPPERS = {
    "accumulate": lambda tx: jopt.accumulate(tx, 3),
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 3),
    "averages": lambda tx: jopt.chain(tx, jopt.params_ema(0.9), jopt.params_mean()),
    "conditionally_mask": lambda tx: jopt.conditionally_mask(tx, even),
    "conditionally_transform": lambda tx: jopt.conditionally_transform(tx, even),
    "dynamic_loss_scale": lambda tx: jopt.dynamic_loss_scale(tx, init_scale=8.0),
    "freeze": lambda tx: jopt.chain(tx, jopt.freeze("bias")),
    "lookahead": lambda tx: jopt.lookahead(tx, sync_period=3),
    "masked": lambda tx: jopt.masked(tx, "kernel"),
    "monitor": lambda tx: jopt.monitor(tx, keep=True),
    "noise": lambda tx: jopt.chain(jopt.add_noise(0.1, 0.5, 0), tx),
    "skip_nonfinite": jopt.skip_nonfinite,
    "skip_spikes": lambda tx: jopt.skip_spikes(tx, warmup_steps=2),
    "tunable": lambda _: jopt.adamw(jopt.tunable(0.01), b1=jopt.tunable(0.8)),
}


def even(step: Any) -> Any:
    return step % 2 == 0


def label(path: str, _: Any) -> str:
    return path.split("/")[0]


def everything() -> jopt.GradientTransformation:
    made = {case.name: case.make() for case in OPTIMIZERS}  # one of each name
    made |= {name: wrap(jopt.adam(0.01)) for name, wrap in WRAPPERS.items()}
    return jopt.partition(made, label)


def drawn(tx: jopt.GradientTransformation, seed: int) -> dict[str, dict[str, Any]]:
    """Parameters, or gradients whose rows are of size 1, 1e-3 and 1e-6."""
    rng = np.random.default_rng(seed)
    scale = np.array([[1.0], [1e-3], [1e-6]]) if seed else np.ones((3, 1))
    return {
        name: {
            "bias": jnp.asarray(rng.normal(size=3) * scale[:, 0], jnp.float32),
            "kernel": jnp.asarray(rng.normal(size=(3, 2)) * scale, jnp.float32),
        }
        for name in tx.recipe.arguments["transforms"]
    }


def main(what: str, folder: Path) -> None:
    tx = everything()

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params, value=loss(params))
        return jopt.apply_updates(params, updates), state

    def train(params: Any, state: Any, done: int, end: int) -> Any:
        for t in range(done, end):
            params, state = step(params, state, drawn(tx, t + 1))
        return params, state

    params = drawn(tx, 0)
    if what == "straight":
        half = train(params, jax.jit(tx.init)(params), 0, 5)
        for form in FORMS:
            checkpoint.save(
                folder / form, params=half[0], opt_state=half[1], tx=tx, step=5
            )
        results = {"straight": train(*half, 5, 10)}
    else:
        results = {}
        for form in FORMS:
            found = checkpoint.restore(folder / form, params=params, tx=tx)
            results[form] = train(found.params, found.opt_state, found.step, 10)
    for name, (params, state) in results.items():
        flat = jopt.state_dict({"params": params, "state": state})
        np.savez(folder / f"{name}.end.npz", **flat)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
