"""The range test against a sweep, on digits: ``python -m tests.benchmarks.range_test``.

For three models, three batch sizes and five optimizers, the sweep trains with every
rate of a grid of factors of 2: 200 steps with a warmup over a tenth of them and half a
cosine to 0, from three seeds. The best rate is that of the lowest validation loss, as
the mean over seeds. The range test of each seed starts from the same parameters and
sees other batches.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jopt


STEPS, SEEDS = 200, (0, 1, 2)
RATES = 2.0 ** np.arange(-12, 5)
OPTIMIZERS = {
    "sgd": jopt.sgd(1.0),
    "sgd, momentum": jopt.sgd(1.0, momentum=0.9),
    "adamw": jopt.adamw(1.0),
    "lion": jopt.lion(1.0),
    "muon": jopt.muon(1.0),
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The images and labels in an order of their own."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)


IMAGES, LABELS = digits()
TRAIN = 1200


def _dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    kernel = jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def mlp(key: jax.Array) -> Any:
    a, b, c = jax.random.split(key, 3)
    return {"a": _dense(a, 64, 64), "b": _dense(b, 64, 64), "out": _dense(c, 64, 10)}


def logistic(key: jax.Array) -> Any:
    return {"out": jax.tree.map(lambda x: 0.1 * x, _dense(key, 64, 10))}


def cnn(key: jax.Array) -> Any:
    a, b, c = jax.random.split(key, 3)
    first, second = _dense(a, 9, 8), _dense(b, 72, 16)
    return {"conv_1": first, "conv_2": second, "out": _dense(c, 64, 10)}


MODELS = {"MLP": mlp, "logistic regression": logistic, "CNN": cnn}


def _patches(x: jax.Array) -> jax.Array:
    """The 3 x 3 neighbours of each pixel: a convolution as a product, fast in vmap."""
    n, m = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate(
        [x[:, i : i + n, j : j + m] for i in range(3) for j in range(3)], -1
    )


def logits(params: Any, x: jax.Array) -> jax.Array:
    def dense(name, x):
        y = x @ params[name]["kernel"]
        return y + jnp.broadcast_to(params[name]["bias"], y.shape)

    if "conv_1" in params:
        x = jax.nn.relu(dense("conv_1", _patches(x.reshape(-1, 8, 8, 1))))
        x = x.reshape(-1, 4, 2, 4, 2, 8).max((2, 4))
        x = jax.nn.relu(dense("conv_2", _patches(x)))
        x = x.reshape(-1, 2, 2, 2, 2, 16).max((2, 4)).reshape(len(x), -1)
    for name in sorted({"a", "b"} & set(params)):
        x = jax.nn.relu(dense(name, x))
    return dense("out", x)


def loss_fn(params: Any, batch: Any) -> jax.Array:
    x, y = batch
    return jopt.losses.softmax_cross_entropy_with_integer_labels(
        logits(params, x), y
    ).mean()


def batches(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two hundred batches of the training images, stacked."""
    rng = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    while len(rows) < STEPS:
        order = rng.permutation(TRAIN)
        rows += [order[i : i + size] for i in range(0, TRAIN - size + 1, size)]
    chosen = np.stack(rows[:STEPS])
    return IMAGES[chosen], LABELS[chosen]


def sweep(tx: Any, init: Callable[[jax.Array], Any], size: int) -> np.ndarray:
    """The validation loss of each rate, as the mean over seeds; at most 20."""
    shape = jopt.warmup_cosine(1.0, warmup_steps=STEPS // 10, total_steps=STEPS)
    shape = shape(jnp.arange(STEPS))

    def final(params, batches, rate):
        def step(carry, now):
            params, state = carry
            batch, rate = now
            state = jopt.set_hyperparams(tx, state, **{"*/learning_rate": rate})
            grads = jax.grad(loss_fn)(params, batch)
            updates, state = tx.update(grads, state, params)
            return (jopt.apply_updates(params, updates), state), None

        start = (params, tx.init(params))
        (params, _), _ = jax.lax.scan(step, start, (batches, rate * shape))
        return loss_fn(params, (IMAGES[TRAIN:], LABELS[TRAIN:]))

    over_rates = jax.vmap(final, (None, None, 0))
    params = jax.vmap(init)(jax.vmap(jax.random.key)(jnp.array(SEEDS)))
    stacked = [
        np.stack(x) for x in zip(*(batches(s, size) for s in SEEDS), strict=True)
    ]
    rates = jnp.asarray(RATES, jnp.float32)
    losses = jax.jit(jax.vmap(over_rates, (0, 0, None)))(params, tuple(stacked), rates)
    return np.minimum(np.nan_to_num(np.asarray(losses), nan=20.0), 20.0).mean(0)


def main(sizes: tuple[int, ...] = (64, 16, 256)) -> None:
    print(
        "| model | batch | optimizer | best of sweep | suggestions | largest factor |"
    )
    print("|---|---|---|---|---|---|")
    factors = []
    for size, (model, init), (name, tx) in itertools.product(
        sizes, MODELS.items(), OPTIMIZERS.items()
    ):
        if model == "CNN" and size != 64:
            continue  # it takes as long as all the others together
        best = RATES[np.argmin(sweep(tx, init, size))]
        found = [
            jopt.lr_range_test(
                tx, loss_fn, init(jax.random.key(seed)), batches(100 + seed, size)
            ).suggestion
            for seed in SEEDS
        ]
        ratios = [max(x / best, best / x) if x else np.inf for x in found]
        factors += ratios
        shown = ", ".join(f"{x:.2g}" if x else "none" for x in found)
        row = [model, size, f"`{name}`", f"{best:.2g}", shown, f"{max(ratios):.1f}"]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    within = np.mean(np.array(factors) <= 3)
    print(f"\n{within:.0%} of {len(factors)} within a factor of 3", flush=True)


if __name__ == "__main__":
    main(*[tuple(map(int, arguments.split(","))) for arguments in sys.argv[1:2]])
