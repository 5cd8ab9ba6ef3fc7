"""Golden checkpoints: what a version of jopt has written, for all later ones to read.

For each recipe, ``<version>/<name>.npz`` has the parameters and the state after five
steps, the gradients of three more, and the parameters after those; ``<name>.json`` is
the schema. `python -m tests.tools.golden_states` writes those of this version that are
missing; existing files never change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt


HERE = Path(__file__).parents[1] / "state" / "golden"
BEFORE, AFTER = 5, 3  # steps
Flat = dict[str, np.ndarray]


def recipes() -> dict[str, jopt.GradientTransformation]:
    """What is written, by the name of its files."""
    warmup = jopt.warmup_cosine(1e-2, warmup_steps=3, total_steps=12)
    return {
        "sgd_momentum": jopt.sgd(0.1, momentum=0.9),
        "adam": jopt.adam(jopt.tunable(1e-2)),
        "adamw_chain": jopt.chain(
            jopt.clip_by_global_norm(1.0), jopt.adamw(warmup, weight_decay=0.1)
        ),
        "partition": jopt.partition(
            {"matrix": jopt.adam(1e-2), "other": jopt.sgd(0.1, momentum=0.9)},
            jopt.rules(("kernel$", "matrix"), ("", "other")),
        ),
        "accumulate": jopt.accumulate(jopt.adam(1e-2), steps=2),
        "schedule_free_adamw": jopt.schedule_free_adamw(1e-2, weight_decay=0.1),
        "adafactor": jopt.adafactor(1e-2, min_dim_size_to_factor=2),
        "muon": jopt.muon(1e-2),
        "lookahead": jopt.lookahead(jopt.sgd(0.1), sync_period=2, slow_step_size=0.5),
        "params_ema": jopt.chain(jopt.adam(1e-2), jopt.params_ema(0.9)),
        "skip_nonfinite": jopt.skip_nonfinite(jopt.adam(1e-2)),
        "dynamic_loss_scale": jopt.dynamic_loss_scale(jopt.adam(1e-2)),
        **whole_optimizers(),
    }


def whole_optimizers() -> dict[str, jopt.GradientTransformation]:
    """Optimizers whose one rule has the learning rate in it.

    Version 0.1.0 wrote the state of this rule without the name of the rule:
    ``accumulator/kernel``, not ``ftrl/accumulator/kernel``.
    """
    ftrl = jopt.ftrl(0.1, l1=jopt.linear_schedule(0.0, 0.1, 8), l2=0.01)
    return {
        "asgd": jopt.asgd(0.1, lambd=0.1, t0=2),
        "dadapt_adamw": jopt.dadapt_adamw(estim_lr0=1e-3, weight_decay=0.1),
        "fromage": jopt.fromage(jopt.linear_schedule(0.1, 0.0, 8)),
        "ftrl": ftrl,
        "ftrl_chain": jopt.chain(jopt.clip_by_global_norm(1.0), ftrl),
        "ftrl_skip_nonfinite": jopt.skip_nonfinite(ftrl),
        "momo": jopt.momo(jopt.tunable(0.5), adapt_lower_bound=True),
        "momo_adam": jopt.momo_adam(weight_decay=0.1),
        "prodigy": jopt.prodigy(estim_lr0=1e-3, growth_rate=jopt.tunable(1.5)),
    }


def gradients(seed: int) -> Iterator[dict[str, Any]]:
    """Rows of very different size, and some zeros."""
    rng = np.random.default_rng(seed)
    size = np.array([[1.0], [1e-3], [1e-6]])
    for t in range(BEFORE + AFTER):
        kernel = rng.normal(size=(3, 4)) * size
        kernel[:, t % 4] = 0.0
        tree = {"bias": rng.normal(size=4), "kernel": kernel, "scale": rng.normal()}
        yield {n: np.asarray(x, np.float32) for n, x in tree.items()}


def continued(
    tx: jopt.GradientTransformation, params: Any, state: Any, grads: Any
) -> tuple[Any, Any]:
    """Parameters and state after a step with each of the gradients."""

    @jax.jit
    def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        value = jopt.tree.norm(params)  # for those that need a loss
        updates, state = tx.update(grads, state, params, value=value)
        return jopt.apply_updates(params, updates), state

    for g in grads:
        params, state = step(g, state, params)
    return params, state


def written(tx: jopt.GradientTransformation) -> tuple[Flat, dict[str, Any]]:
    """The arrays and the schema of a checkpoint."""
    params = jax.tree.map(jnp.asarray, next(gradients(seed=1)))
    grads = list(gradients(seed=2))
    if tx.name.startswith(("skip_nonfinite", "dynamic_loss_scale")):
        grads[3]["bias"][0] = np.inf
    params, state = continued(tx, params, tx.init(params), grads[:BEFORE])
    after, _ = continued(tx, params, state, grads[BEFORE:])
    parts = {"params": params, "state": state, "grads": grads[BEFORE:], "after": after}
    flat = {
        f"{part}/{path}": np.asarray(x)
        for part, tree in parts.items()
        for path, x in jopt.state_dict(tree).items()
    }
    return flat, jopt.schema(tx, state)


def read(path: Path) -> tuple[dict[str, Flat], dict[str, Any]]:
    """The arrays of the parts of a checkpoint, and its schema."""
    parts: dict[str, Flat] = {"params": {}, "state": {}, "grads": {}, "after": {}}
    with np.load(path, allow_pickle=False) as file:
        for name, x in file.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = x
    return parts, json.loads(path.with_suffix(".json").read_text())


def main() -> None:
    """Write what is missing."""
    folder = HERE / jopt.__version__
    folder.mkdir(exist_ok=True)
    for name, tx in recipes().items():
        path = folder / f"{name}.npz"
        if path.exists():
            print(f"{path.name} stays")
            continue
        flat, schema = written(tx)
        np.savez_compressed(path, **flat)  # pyright: ignore[reportArgumentType]
        path.with_suffix(".json").write_text(json.dumps(schema, indent=1) + "\n")
        print(f"{path.name}: {len(flat)} arrays, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
