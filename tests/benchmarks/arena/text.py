"""Language models."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import losses
from jopt.inspect import RaceTask
from tests.benchmarks.arena.field import EVERY_LAYER
from tests.benchmarks.arena.layers import normalized
from tests.benchmarks.arena.problem import OneByOne, Problem, exact


def codes() -> tuple[np.ndarray, int]:
    """Characters of Python's help texts as numbers, and how many different ones."""
    import pydoc_data.topics as pages

    text = "".join(pages.topics[name] for name in sorted(pages.topics))
    alphabet = sorted(set(text))
    numbers = {character: i for i, character in enumerate(alphabet)}
    return np.array([numbers[x] for x in text], np.int32), len(alphabet)


def transformer(steps: int = 250) -> RaceTask:
    """A GPT of two layers of width 64 on 64 characters; its queries are normalized."""
    text, symbols = codes()
    width, heads, length = 64, 4, 64
    train, validation, test = np.split(text, [len(text) * 8 // 10, len(text) * 9 // 10])
    train = jnp.asarray(train)
    mask = np.tril(np.ones((length, length), bool))

    def init(key):
        def normal(i, *shape, scale=1.0):
            return jax.random.normal(jax.random.fold_in(key, i), shape) * scale

        small = width**-0.5
        params: dict[str, Any] = {
            "embed": normal(0, symbols, width, scale=0.02),
            "embed_positions": normal(1, length, width, scale=0.02),
            "head": normal(2, width, symbols, scale=small),
        }
        for i in range(2):
            n = 10 * (i + 1)
            params[f"layer_{i}"] = {
                "query": normal(n, width, width, scale=small),
                "key": normal(n + 1, width, width, scale=small),
                "value": normal(n + 2, width, width, scale=small),
                "out": normal(n + 3, width, width, scale=small / 2),
                "up": normal(n + 4, width, 4 * width, scale=small),
                "down": normal(n + 5, 4 * width, width, scale=small / 4),
            }
        return params

    def attention(layer, x):
        def projected(name):
            y = x @ layer[name]
            return y.reshape(*y.shape[:-1], heads, -1)

        q, k = normalized(projected("query")), normalized(projected("key"))
        scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / (width // heads) ** 0.5
        seen = jnp.broadcast_to(mask, scores.shape)
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e9), -1)
        y = jnp.einsum("...hqk,...khd->...qhd", weights, projected("value"))
        return y.reshape(x.shape) @ layer["out"]

    def loss(params, batch, key=None):
        x, y = batch[:, :-1], batch[:, 1:]
        positions = params["embed_positions"]
        x = params["embed"][x]
        x = normalized(x + jnp.broadcast_to(positions, x.shape))
        for i in range(2):
            layer = params[f"layer_{i}"]
            x += attention(layer, normalized(x))
            x += jnp.square(jax.nn.relu(normalized(x) @ layer["up"])) @ layer["down"]
        logits = normalized(x) @ params["head"]
        return losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def windows(part, starts):
        return part[starts[:, None] + np.arange(length + 1)[None]]

    def batch(key):
        return windows(
            train, jax.random.randint(key, (16,), 0, len(train) - length - 1)
        )

    def spread_over(part):
        return windows(part, np.linspace(0, len(part) - length - 1, 64).astype(int))

    return OneByOne(
        init=init,
        loss=loss,
        train=batch,
        validation=spread_over(validation),
        test=spread_over(test),
        steps=steps,
    )


def bigrams(steps: int = 200) -> RaceTask:
    """Softmax regression on pairs of 256 words whose frequencies are Zipf's.

    The next word has Zipf's frequencies, in an order that depends on the word before it
    for one half. The loss is exact, and less the entropy: 0 at the minimum.
    """
    n, rng = 256, np.random.default_rng(0)
    frequencies = 1 / np.arange(1, n + 1)
    frequencies /= frequencies.sum()
    own = np.stack([rng.permutation(frequencies) for _ in range(n)])
    table = (own + frequencies[None]) / 2
    pairs = jnp.asarray(frequencies[:, None] * table, jnp.float32)
    least = jnp.asarray(np.log(table), jnp.float32)

    def loss(params):
        logs = jax.nn.log_softmax(params["logits"], -1)
        return jnp.sum(pairs * (least - logs))

    def init(key):
        return {"logits": 0.1 * jax.random.normal(key, (n, n))}

    return exact(init, loss, steps)


PROBLEMS = {
    "w4": Problem(
        title="A transformer on characters",
        about=(
            "Two layers of width 64 (115,584 parameters) on Python's help texts, 250 "
            "steps of 16 x 64 characters; the loss on text that it has not seen."
        ),
        task=transformer,
        also=EVERY_LAYER,
    ),
    "w13": Problem(
        title="Pairs of words with Zipf's frequencies",
        about=(
            "Softmax regression, 256 x 256 parameters, exact gradients: most words "
            "are rare, which is a reason for Adam (Kunstner et al., 2024). The matrix "
            "is a head, which Muon leaves to AdamW."
        ),
        task=bigrams,
        goal=1e-3,
    ),
}
