"""Short programs as the users of optax write them; each takes the module.

Each returns the losses of its steps. They are of the kinds that public code has: what
they do with transformations and states is what matters, not what they learn.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


STEPS = 20
PROGRAMS: dict[str, Callable[[Any], Any]] = {}


def program(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Collect a program."""
    PROGRAMS[function.__name__] = function
    return function


def data(*shape: int, seed: int = 0) -> jax.Array:
    """Return numbers that no program has chosen."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def dense(*sizes: int, seed: int = 0) -> dict[str, Any]:
    """Return the parameters of a network."""
    return {
        f"layer{i}": {
            "bias": jnp.zeros(n, float),
            "kernel": data(m, n, seed=seed + i) / m**0.5,
        }
        for i, (m, n) in enumerate(itertools.pairwise(sizes))
    }


def apply(params: Any, x: jax.Array) -> jax.Array:
    """Return the outputs of a network."""
    for name, layer in sorted(params.items()):
        x = x @ layer["kernel"] + layer["bias"][None]
        x = jnp.tanh(x) if name != f"layer{len(params) - 1}" else x
    return x


X, Y = functools.partial(data, 32, 4, seed=5), functools.partial(data, 32, 3, seed=6)


def regression(params: Any) -> jax.Array:
    """Return the loss of a network on constant data."""
    return jnp.mean((apply(params, X()) - Y()) ** 2)


GRADIENT = jax.jit(jax.value_and_grad(regression))


def train(optax: Any, tx: Any, loss: Any, params: Any, **extra: Any) -> list[Any]:
    """Return the losses of a plain training loop."""

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for _ in range(STEPS):
        params, state, value = step(params, state)
        losses.append(value)
    return losses


@program
def variational_inference(optax):
    """SVI: a Gaussian guide, clipped Adam, and extra arguments of no interest."""
    tx = optax.chain(optax.clip(10.0), optax.adam(0.01))
    assert isinstance(tx, optax.GradientTransformation)
    init, update = tx
    update = jax.jit(update)
    noise, target = data(64, 2, seed=1), jnp.asarray([1.0, -2.0])

    def negative_elbo(params):
        z = params["loc"][None] + jnp.exp(params["log_scale"])[None] * noise
        log_p = -0.5 * jnp.sum((z - target[None]) ** 2, axis=1)
        return -jnp.mean(log_p) - jnp.sum(params["log_scale"])

    params = {"loc": jnp.zeros(2, float), "log_scale": jnp.zeros(2, float)}
    state, losses = init(params), []
    for _ in range(STEPS):
        value, grads = jax.value_and_grad(negative_elbo)(params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    return losses


@program
def injected_rate(optax):
    """PPO: clip and Adam with a rate that the loop reads and lowers."""
    tx = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.05, eps=1e-5),
    )
    params = dense(4, 8, 3)
    update, state, losses = jax.jit(tx.update), tx.init(params), []
    for i in range(STEPS):
        state[1].hyperparams["learning_rate"] = jnp.asarray(0.05 * (1 - i / STEPS))
        value, grads = GRADIENT(params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses += [value, state[1].hyperparams["learning_rate"]]
    return losses


@program
def counts_in_states(optax):
    """A trainer that looks for the count of any state by name."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 5, STEPS)
    tx = optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(1e-2), optax.scale(-1.0),
        optax.scale_by_schedule(schedule),
    )  # fmt: skip

    def count(state):
        found = [
            x.count
            for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "_fields"))
            if "count" in getattr(x, "_fields", ())
        ]
        assert len(set(map(int, found))) == 1, found
        return found[0]

    params = dense(4, 8, 3)
    update, state, losses = jax.jit(tx.update), tx.init(params), []
    for _ in range(STEPS):
        value, grads = GRADIENT(params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses += [value, jnp.asarray(count(state), float), schedule(count(state))]
    assert optax.tree_utils.tree_get(state[0], "count") == STEPS
    return losses


@program
def groups_with_surgery(optax):
    """S5: groups with injected rates, which the loop sets through inner_states."""
    labels = {"layer0": "slow", "layer1": {"bias": "frozen", "kernel": "fast"}}
    tx = optax.multi_transform(
        {
            "slow": optax.inject_hyperparams(optax.sgd)(learning_rate=0.01),
            "fast": optax.inject_hyperparams(optax.adamw)(
                learning_rate=0.1, weight_decay=0.01
            ),
            "frozen": optax.set_to_zero(),
        },
        labels,
    )
    params = dense(4, 8, 3)
    update, state, losses = jax.jit(tx.update), tx.init(params), []
    for i in range(STEPS):
        for label in ("slow", "fast"):
            inner = state.inner_states[label].inner_state
            inner.hyperparams["learning_rate"] = jnp.asarray(0.1 / (i + 1))
        value, grads = GRADIENT(params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    mu = state.inner_states["fast"].inner_state.inner_state[0].mu
    assert isinstance(mu["layer0"], optax.MaskedNode) or isinstance(
        mu["layer0"]["kernel"], optax.MaskedNode
    )
    return losses


@program
def factories_of_ones_own(optax):
    """Levanter and MaxText: a config builds a chain, inject_hyperparams wraps it."""

    def build(learning_rate, weight_decay=0.1, b2=0.95):
        def mask(params):
            return jax.tree.map(lambda p: p.ndim > 1, params)

        parts = [optax.clip_by_global_norm(1.0)]
        parts.append(optax.scale_by_adam(0.9, b2, 1e-8))
        parts.append(optax.add_decayed_weights(weight_decay, mask))
        parts.append(optax.scale(-learning_rate))
        return optax.chain(*parts)

    schedule = optax.linear_schedule(0.1, 0.0, STEPS)
    tx = optax.inject_hyperparams(build)(learning_rate=schedule)
    return train(optax, tx, regression, dense(4, 8, 3))


@program
def average_by_hand(optax):
    """Haiku's CIFAR example: an average of the parameters beside the training."""
    tx = optax.sgd(optax.cosine_decay_schedule(0.1, STEPS), momentum=0.9, nesterov=True)
    params = dense(4, 8, 3)
    average, state, losses = params, tx.init(params), []
    update = jax.jit(tx.update)
    for i in range(STEPS):
        _, grads = GRADIENT(params)
        updates, state = update(grads, state)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, step_size=0.1)
        target = optax.periodic_update(params, average, jnp.asarray(i), 5)
        losses += [regression(average), regression(target), optax.global_norm(updates)]
    return losses


@program
def adversarial_ascent(optax):
    """A GAN: one optimizer descends, the other ascends by a negative rate."""
    minimizer, maximizer = optax.adam(0.05, b1=0.5), optax.sgd(-0.05)
    real = data(32, 2, seed=2) + 1.0
    noise = data(32, 2, seed=3)

    def value(generator, critic):
        fake = noise * generator["scale"][None] + generator["shift"][None]
        score = jax.nn.log_sigmoid(real @ critic) + jax.nn.log_sigmoid(-fake @ critic)
        return jnp.mean(score)

    generator = {"scale": jnp.ones(2, float), "shift": jnp.zeros(2, float)}
    critic = jnp.zeros(2, float) + 0.1
    states, losses = (minimizer.init(generator), maximizer.init(critic)), []
    gradient = jax.jit(jax.value_and_grad(value, (0, 1)))
    for _ in range(STEPS):
        loss, (for_g, for_c) = gradient(generator, critic)
        u, first = minimizer.update(for_g, states[0])
        v, second = maximizer.update(for_c, states[1])
        generator = optax.apply_updates(generator, u)
        critic = optax.apply_updates(critic, v)
        states = first, second
        losses.append(loss)
    return losses


@program
def learned_rate(optax):
    """Meta-learning: the gradient of later losses with respect to the rate."""

    @optax.inject_hyperparams
    def inner(learning_rate, momentum):
        return optax.sgd(learning_rate, momentum)

    inner_tx, outer_tx = inner(0.02, 0.9), optax.sgd(0.5)
    params = dense(4, 3)

    def later_loss(log_rate):
        p, state = params, inner_tx.init(params)
        for _ in range(3):
            state.hyperparams["learning_rate"] = jnp.exp(log_rate)
            updates, state = inner_tx.update(jax.grad(regression)(p), state)
            p = optax.apply_updates(p, updates)
        return regression(p)

    log_rate = jnp.log(jnp.asarray(0.02))
    state, losses = outer_tx.init(log_rate), []
    gradient = jax.jit(jax.value_and_grad(later_loss))
    for _ in range(STEPS):
        value, grad = gradient(log_rate)
        updates, state = outer_tx.update(grad, state)
        log_rate = optax.apply_updates(log_rate, updates)
        losses += [value, grad]
    return losses


@program
def frozen_backbone(optax):
    """Fine-tuning: a frozen backbone by masks, in both of the usual ways."""

    def frozen(params):
        return {
            name: jax.tree.map(lambda _, name=name: name == "layer0", x)
            for name, x in params.items()
        }

    params = dense(4, 8, 3)
    first = optax.chain(optax.adamw(0.05), optax.masked(optax.set_to_zero(), frozen))
    second = optax.selective_transform(optax.lamb(0.05), freeze_mask=frozen(params))
    return train(optax, first, regression, params) + train(
        optax, second, regression, params
    )


class Autoencoder(NamedTuple):
    """The parameters of a variational autoencoder."""

    encoder: Any
    decoder: Any


@program
def variational_autoencoder(optax):
    """A VAE with optax's losses and Yogi."""
    images = jax.nn.sigmoid(data(16, 6, seed=8))
    noise = data(16, 2, seed=9)

    def loss(params):
        mean, log_std = jnp.split(apply(params.encoder, images), 2, axis=-1)
        logits = apply(params.decoder, mean + jnp.exp(log_std) * noise)
        fit = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, images), -1)
        kl = 0.5 * jnp.sum(jnp.exp(2 * log_std) + mean**2 - 1 - 2 * log_std, -1)
        return jnp.mean(fit + kl)

    params = Autoencoder(dense(6, 8, 4), dense(2, 8, 6, seed=3))
    return train(optax, optax.yogi(0.01), loss, params)


@program
def sequence_model(optax):
    """Next tokens with Adafactor-like memory, accumulation and label smoothing."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (8, 6)))
    params = {"embed": data(7, 5, seed=1), "out": data(5, 7, seed=2)}

    def loss(params):
        logits = params["embed"][tokens[:, :-1]] @ params["out"]
        labels = jax.nn.one_hot(tokens[:, 1:], 7, dtype=logits.dtype)
        smooth = optax.smooth_labels(labels, 0.1)
        hard = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return jnp.mean(optax.softmax_cross_entropy(logits, smooth)) + jnp.mean(hard)

    steps = optax.MultiSteps(
        optax.chain(optax.scale_by_rms(0.99), optax.scale(-0.01)), every_k_schedule=2
    )
    update, state, losses = jax.jit(steps.update), steps.init(params), []
    gradient = jax.jit(jax.value_and_grad(loss))
    for _ in range(STEPS):
        value, grads = gradient(params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        norm = optax.tree_utils.tree_l2_norm(state.acc_grads)
        losses += [value, norm, jnp.asarray(steps.has_updated(state), float)]
    return losses


@program
def guards_and_plateaus(optax):
    """A long run: bad gradients are skipped, and a plateau lowers the rate."""
    tx = optax.chain(
        optax.apply_if_finite(optax.adam(0.05), 3),
        optax.contrib.reduce_on_plateau(0.5, patience=2, cooldown=1),
    )
    params = dense(4, 8, 3)
    update, state, losses = jax.jit(tx.update), tx.init(params), []
    for i in range(STEPS):
        value, grads = GRADIENT(params)
        bad = jnp.nan if i % 6 == 4 else 1.0
        grads = jax.tree.map(lambda g, bad=bad: g * bad, grads)
        updates, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        losses += [value, state[1].scale, jnp.asarray(state[0].total_notfinite, float)]
    return losses


@program
def transformation_of_ones_own(optax):
    """A transformation by hand, with a state, in a named chain."""

    class State(NamedTuple):
        largest: Any

    def init(params):
        return State(jax.tree.map(lambda p: jnp.zeros((), p.dtype), params))

    def update(updates, state, params=None):
        del params
        largest = jax.tree.map(
            lambda m, g: jnp.maximum(0.9 * m, jnp.max(jnp.abs(g))),
            state.largest,
            updates,
        )
        new = jax.tree.map(lambda g, m: g / (m + 1e-8), updates, largest)
        return new, State(largest)

    assert list(inspect.signature(optax.GradientTransformation).parameters) == [
        "init", "update"
    ]  # fmt: skip
    by_largest = optax.GradientTransformation(init, update)
    tx = optax.named_chain(
        ("largest", by_largest),
        ("momentum", optax.trace(0.9)),
        ("rate", optax.scale(-0.01)),
    )
    state = tx.init(dense(4, 3))
    assert list(state) == ["largest", "momentum", "rate"]
    assert state["rate"] == optax.EmptyState()
    return train(optax, tx, regression, dense(4, 3))


@program
def lookahead_parameters(optax):
    """Two sets of parameters, and evaluation with the slow ones."""
    tx = optax.lookahead(optax.adam(0.05), sync_period=5, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(dense(4, 8, 3))
    update, state, losses = jax.jit(tx.update), tx.init(params), []
    for _ in range(STEPS):
        value, grads = GRADIENT(params.fast)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses += [value, regression(params.slow)]
    return losses


@program
def averaged_iterates(optax):
    """Schedule-free AdamW, evaluated at its average."""
    tx = optax.contrib.schedule_free_adamw(0.05)
    params = dense(4, 8, 3)
    update, state, losses = jax.jit(tx.update), tx.init(params), []
    for _ in range(STEPS):
        _, grads = GRADIENT(params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        average = optax.contrib.schedule_free_eval_params(state, params)
        losses.append(regression(average))
    return losses
