"""Small networks on scikit-learn's digits."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from jopt import losses
from jopt.inspect import RaceTask
from tests.benchmarks.arena.field import EVERY_LAYER, FIELD
from tests.benchmarks.arena.layers import dense, layer, mlp, mlp_init, normalized, split
from tests.benchmarks.arena.problem import Problem


def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return np.asarray(images / 16, np.float32), np.asarray(labels, np.int32)


def cross_entropy(params: Any, batch: Any, key: Any = None) -> jax.Array:
    """The loss of an MLP with ReLU."""
    x, y = batch
    logits = mlp(params, x, jax.nn.relu)
    return losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def classifier(batch_size: int = 128, steps: int = 150, width: int = 128) -> RaceTask:
    """An MLP of two hidden layers: the cross entropy of what it is trained on."""
    data = digits()
    return RaceTask(
        init=mlp_init([64, width, width, 10], gain=2**0.5),
        loss=cross_entropy,
        train=data,
        validation=data,
        test=data,
        steps=steps,
        batch_size=batch_size,
    )


def autoencoder(steps: int = 1000) -> RaceTask:
    """Digits through 8 numbers, with tanh: after Hinton & Salakhutdinov, 2006."""
    images, _ = digits()
    sizes = [64, 128, 64, 32, 8]

    def loss(params, images, key=None):
        return jnp.mean((mlp(params, images, jnp.tanh) - images) ** 2)

    return RaceTask(
        init=mlp_init([*sizes, *sizes[-2::-1]]),
        loss=loss,
        train=images,
        validation=images,
        test=images,
        steps=steps,
        batch_size=256,
    )


def in_bfloat16(steps: int = 1000) -> RaceTask:
    """The classifier with parameters in bfloat16, which have three digits."""
    data = digits()
    init = mlp_init([64, 128, 128, 10], gain=2**0.5)

    def loss(params, batch, key=None):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        return cross_entropy(params, batch)

    return RaceTask(
        init=lambda key: jax.tree.map(lambda p: p.astype(jnp.bfloat16), init(key)),
        loss=loss,
        train=data,
        validation=data,
        test=data,
        steps=steps,
        batch_size=128,
    )


def mixer(steps: int = 300) -> RaceTask:
    """An MLP-Mixer on 16 patches of 2 x 2 pixels: Tolstikhin et al., 2021."""
    images, labels = digits()
    patches = images.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 16, 4)
    train, validation, test = split((patches, labels), 1077, 360)
    width, tokens = 32, 16

    def init(key):
        keys = iter(jax.random.split(key, 10))
        params = {
            "embed": layer(next(keys), 4, width),
            "head": layer(next(keys), width, 10),
        }
        for i in range(2):
            params[f"block_{i}"] = {
                "tokens_up": layer(next(keys), tokens, 32, 2**0.5),
                "tokens_down": layer(next(keys), 32, tokens, 0.5),
                "up": layer(next(keys), width, 64, 2**0.5),
                "down": layer(next(keys), 64, width, 0.5),
            }
        return params

    def loss(params, batch, key=None):
        x, y = batch
        x = dense(params["embed"], x)
        for i in range(2):
            block = params[f"block_{i}"]
            mixed = normalized(x).swapaxes(1, 2)
            mixed = jax.nn.gelu(dense(block["tokens_up"], mixed))
            x += dense(block["tokens_down"], mixed).swapaxes(1, 2)
            mixed = jax.nn.gelu(dense(block["up"], normalized(x)))
            x += dense(block["down"], mixed)
        logits = dense(params["head"], normalized(x.mean(1)))
        return losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return RaceTask(
        init=init,
        loss=loss,
        train=train,
        validation=validation,
        test=test,
        steps=steps,
        batch_size=64,
    )


class PerExample(RaceTask):
    """A task whose gradients are those of each example of the batch."""

    def value_and_grad(self, params: Any, batch: Any, key: jax.Array) -> Any:
        one = jax.tree.map(lambda x: x[:, None], batch)
        both = jax.vmap(jax.value_and_grad(self.loss), (None, 0, None))
        loss, grads = both(params, one, key)
        return loss.mean(), grads


def private(steps: int = 300) -> RaceTask:
    """Digits by an MLP of 32 units, from gradients of single examples."""
    train, validation, test = split(digits(), 1437, 180)
    return PerExample(
        init=mlp_init([64, 32, 10], gain=2**0.5),
        loss=cross_entropy,
        train=train,
        validation=validation,
        test=test,
        steps=steps,
        batch_size=96,
    )


def delayed_xor(steps: int = 1000, length: int = 16) -> RaceTask:
    """A recurrent network says whether two marked bits of a sequence differ."""

    def batch(key):
        key, one, two = jax.random.split(key, 3)
        bits = jax.random.bernoulli(key, 0.5, (64, length)).astype(jnp.float32)
        first = jax.random.randint(one, (64,), 0, length // 2)
        second = jax.random.randint(two, (64,), length // 2, length)
        at = np.arange(length)[None]
        marked = (at == first[:, None]) | (at == second[:, None])
        odd = jnp.sum(jnp.where(marked, bits, 0), 1) == 1
        x = jnp.stack([2 * bits - 1, marked.astype(jnp.float32)], -1)
        return x, odd.astype(jnp.float32)

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "embed": layer(keys[0], 2, 32),
            "recurrent": layer(keys[1], 32, 32),
            "head": layer(keys[2], 32, 1),
        }

    def loss(params, batch, key=None):
        x, y = batch

        def step(state, x):
            inner = dense(params["recurrent"], state) + dense(params["embed"], x)
            return jnp.tanh(inner), None

        state, _ = jax.lax.scan(step, jnp.zeros((len(x), 32)), x.swapaxes(0, 1))
        logits = dense(params["head"], state)[:, 0]
        return losses.sigmoid_binary_cross_entropy(logits, y).mean()

    held = jax.tree.map(
        lambda *x: jnp.concatenate(x),
        *map(batch, jax.random.split(jax.random.key(1), 4)),
    )
    return RaceTask(
        init=init, loss=loss, train=batch, validation=held, test=held, steps=steps
    )


# Of each optimizer, what its papers transfer to other widths.
WIDTHS = {name: FIELD[name] for name in ("sgd", "adamw", "muon")} | {
    "muon, spectral": 'muon(1e-3, shape_scale="spectral")'
}
# The noise for epsilon = 3 at delta = 1e-4: 300 batches of 96 of 1,437 examples, drawn
# at random.
PRIVATE = "differentially_private_aggregate(1.0, 1.8, key=0)"

PROBLEMS = {
    "w2": Problem(
        title="Digits, an MLP",
        about=(
            "64-128-128-10 with ReLU, 150 steps of 128; the loss on what it is trained "
            "on."
        ),
        task=classifier,
        also=EVERY_LAYER,
    ),
    "w3": Problem(
        title="Digits, a deep autoencoder",
        about=(
            "64-128-64-32-8 and back, with tanh, 1,000 steps of 256; the squared error "
            "on what it is trained on. Small curvature in most directions of each "
            "matrix."
        ),
        task=autoencoder,
        also=EVERY_LAYER,
    ),
    "w9": Problem(
        title="Delayed XOR",
        about=(
            "A recurrent network of 32 units reads 16 bits, two of which are marked: "
            "do they differ? A gradient that has to come from far."
        ),
        task=delayed_xor,
        goal=0.1,
    ),
    "w10": Problem(
        title="Parameters in bfloat16",
        about=(
            "The MLP of w2 for 1,000 steps, with parameters that are kept in bfloat16. "
            "A change of less than 0.4 % of a parameter is lost when it is rounded, "
            "unless `bf16_params` keeps it."
        ),
        task=in_bfloat16,
        also={
            f"adamw in {rounding}": (
                f'bf16_params(adamw(1e-3, weight_decay=0.0{moments}), "{rounding}")'
            )
            for rounding, moments in {
                "ecc8": ', mu_dtype="int8", nu_dtype="int8"',
                "kahan": "",
                "stochastic": "",
            }.items()
        },
    ),
    "w11": Problem(
        title="Digits, an MLP-Mixer",
        about="Two blocks of width 32, 300 steps of 64; the loss on other digits.",
        task=mixer,
    ),
    "w12": Problem(
        title="Digits, with differential privacy",
        about=(
            "An MLP of 32 units, gradients of single examples clipped to a norm of 1, "
            "and noise for ε = 3; the loss on other digits."
        ),
        task=private,
        field={
            "sgd": f"chain({PRIVATE}, sgd(0.1, momentum=0.9))",
            "adamw": f"chain({PRIVATE}, adamw(1e-3, weight_decay=0.0))",
            "lion": f"chain({PRIVATE}, lion(1e-4, weight_decay=0.0))",
            "adafactor": f"chain({PRIVATE}, adafactor(0.01))",
            "muon": f"chain({PRIVATE}, muon(1e-3, consistent_rms=0.2))",
        },
    ),
    **{
        f"w14_{width}": Problem(
            title=f"Digits, an MLP of width {width}",
            about="As w2: does the best rate depend on the width?",
            task=functools.partial(classifier, width=width),
            field=WIDTHS,
        )
        for width in (32, 64, 128, 256)
    },
    **{
        f"w15_{size}": Problem(
            title=f"Digits, batches of {size}",
            about=f"As w2, with {steps} steps of {size}.",
            task=functools.partial(classifier, batch_size=size, steps=steps),
        )
        for size, steps in ((16, 600), (1024, 75))
    },
}
