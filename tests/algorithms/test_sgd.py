"""Gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import Case
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, Scalar, at, double, steps


def sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    lr_in_momentum: bool = False,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Polyak, 1964, "Some methods of speeding up the convergence of iteration methods".

    ``nesterov``: Sutskever et al., 2013, "On the importance of initialization".
    """
    p = double(p)
    b = np.zeros_like(p)
    for t, g in steps(grads):
        lr = at(learning_rate, t)
        mu = 0.0 if momentum is None else at(momentum, t)
        if lr_in_momentum:
            b = mu * b + lr * g
            step = lr * g + mu * b if nesterov else b
        else:
            b = mu * b + g
            step = lr * (g + mu * b) if nesterov else lr * b
        p = p - step - lr * at(weight_decay, t) * p
        yield p


def dampened_sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar,
    dampening: Scalar,
) -> Iterator[Array]:
    """torch.optim.SGD: the first gradient is not dampened."""
    p = double(p)
    b = np.zeros_like(p)
    for t, g in steps(grads):
        b = at(momentum, t) * b + (1 - at(dampening, t)) * g if t > 1 else g
        p = p - at(learning_rate, t) * b
        yield p


CASES = [
    Case("sgd"),
    Case("sgd", {"momentum": 0.9}),
    Case("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    Case("sgd", {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True}),
    Case("sgd", {"momentum": 0.9, "dampening": 0.5}, twin=dampened_sgd),
]

WITHOUT_ROW = {
    "noisy_sgd": "random",
}

KERNEL_ONLY = "{'kernel': True, 'bias': False}"
# Most of optax's schedules divide the count in float32, in x64 mode too. Its cosine
# does not: it serves where an optimizer under a schedule is compared.
FLOAT32_SCHEDULE = 1e-7
ROWS = (
    keras("sgd", "SGD(0.05)", "sgd(0.05)"),
    keras("sgd-schedule", "SGD(DECAY)", "sgd(DECAY)"),
    keras("sgd-momentum", "SGD(0.05, momentum=0.9)", "sgd(0.05, 0.9)"),
    keras(
        "sgd-momentum-schedule",
        "SGD(DECAY, momentum=0.9)",
        "sgd(DECAY, 0.9, lr_in_momentum=True)",
    ),
    keras(
        "sgd-nesterov",
        "SGD(0.05, momentum=0.9, nesterov=True)",
        "sgd(0.05, 0.9, nesterov=True, lr_in_momentum=True)",
    ),
    keras(
        "sgd-nesterov-schedule",
        "SGD(DECAY, momentum=0.9, nesterov=True)",
        "sgd(DECAY, 0.9, nesterov=True, lr_in_momentum=True)",
    ),
    # Keras decays before the update, outside of momentum and of every denominator.
    keras(
        "sgd-weight-decay",
        "SGD(0.05, weight_decay=0.1)",
        "sgd(0.05, weight_decay=0.1)",
    ),
    keras(
        "sgd-momentum-weight-decay",
        "SGD(0.05, momentum=0.9, weight_decay=0.1)",
        "sgd(0.05, 0.9, weight_decay=0.1)",
    ),
    keras(
        "sgd-clipnorm",
        "SGD(0.05, clipnorm=0.5)",
        "chain(clip_by_norm(0.5), sgd(0.05))",
    ),
    keras(
        "sgd-global-clipnorm",
        "SGD(0.05, global_clipnorm=0.5)",
        "chain(clip_by_global_norm(0.5), sgd(0.05))",
    ),
    keras(
        "sgd-clipvalue",
        "SGD(0.05, clipvalue=0.5)",
        "chain(clip(0.5), sgd(0.05))",
    ),
    keras(
        "sgd-exponential-decay",
        "SGD(ExponentialDecay(0.05, 3, 0.5))",
        "sgd(exponential_decay(0.05, 3, 0.5))",
    ),
    keras(
        "sgd-exponential-decay-staircase",
        "SGD(ExponentialDecay(0.05, 3, 0.5, staircase=True))",
        "sgd(exponential_decay(0.05, 3, 0.5, staircase=True))",
    ),
    keras(
        "sgd-inverse-time-decay-staircase",
        "SGD(InverseTimeDecay(0.05, 4, 0.5, staircase=True))",
        "sgd(inverse_time_decay(0.05, 4, 0.5, staircase=True))",
    ),
    keras(
        "sgd-polynomial-decay",
        "SGD(PolynomialDecay(0.05, 9, 0.001, power=2.0))",
        "sgd(polynomial_schedule(0.05, 0.001, 2.0, 9))",
    ),
    keras(
        "sgd-polynomial-decay-cycle",
        "SGD(PolynomialDecay(0.05, 3, 0.001, power=2.0, cycle=True))",
        "sgd(polynomial_schedule(0.05, 0.001, 2.0, 3, cycle=True))",
    ),
    keras(
        "sgd-cosine-decay",
        "SGD(CosineDecay(0.05, 8, alpha=0.1))",
        "sgd(cosine_decay_schedule(0.05, 8, 0.1))",
        tol64=5e-8,  # Keras's cosine is float32 in any case
    ),
    torch("sgd", "SGD(lr=0.05)", "sgd(0.05)"),
    torch("sgd-momentum", "SGD(lr=0.05, momentum=0.9)", "sgd(0.05, 0.9)"),
    torch("sgd-momentum-schedule", "SGD(lr=0.05, momentum=0.9)", "sgd(DECAY, 0.9)"),
    torch(
        "sgd-nesterov",
        "SGD(lr=0.05, momentum=0.9, nesterov=True)",
        "sgd(0.05, 0.9, nesterov=True)",
    ),
    torch(
        "sgd-nesterov-schedule",
        "SGD(lr=0.05, momentum=0.9, nesterov=True)",
        "sgd(DECAY, 0.9, nesterov=True)",
    ),
    # torch's weight_decay is L2 regularization: part of the gradient.
    torch(
        "sgd-l2",
        "SGD(lr=0.05, momentum=0.9, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), sgd(0.05, 0.9))",
    ),
    optax("sgd", "sgd(0.05)"),
    optax("sgd-momentum", "sgd(0.05, 0.9)"),
    optax("sgd-nesterov", "sgd(0.05, 0.9, nesterov=True)"),
    optax("sgd-momentum-schedule", "sgd(cosine_decay_schedule(0.05, 8), 0.9)"),
    optax(
        "sgd-lr-in-momentum",
        "chain(scale_by_learning_rate(cosine_decay_schedule(0.05, 8)), trace(0.9))",
        "sgd(cosine_decay_schedule(0.05, 8), 0.9, lr_in_momentum=True)",
    ),
    optax(
        "linear-schedule",
        "sgd(linear_schedule(0.05, 0.01, 7, 2))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax(
        "polynomial-schedule",
        "sgd(polynomial_schedule(0.05, 0.01, 2.0, 7, 2))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax(
        "exponential-decay",
        "sgd(exponential_decay(0.05, 5, 0.5))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax(
        "exponential-decay-options",
        "sgd(exponential_decay(0.05, 2, 0.5, 3, staircase=True, end_value=0.01))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax("cosine-decay", "sgd(cosine_decay_schedule(0.05, 8, 0.1, 2.0))"),
    optax(
        "piecewise-constant",
        "sgd(piecewise_constant_schedule(0.05, {3: 0.5, 7: 0.1}))",
    ),
    optax(
        "l2-mask",
        f"chain(add_decayed_weights(0.1, {KERNEL_ONLY}), sgd(0.05, 0.9))",
    ),
    torch(
        "sgd-maximize-l2",
        "SGD(lr=0.05, momentum=0.9, weight_decay=0.1, maximize=True)",
        "chain(scale(-1.0), add_decayed_weights(0.1), sgd(0.05, 0.9))",
    ),
    torch(
        "sgd-dampening",
        "SGD(lr=0.05, momentum=0.9, dampening=0.5)",
        "sgd(0.05, 0.9, dampening=0.5)",
    ),
    torch(
        "sgd-dampening-schedule",
        "SGD(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), sgd(DECAY, 0.9, dampening=0.3))",
    ),
    torch(
        "sgd-maximize",
        "SGD(lr=0.05, momentum=0.9, nesterov=True, maximize=True)",
        "chain(scale(-1.0), sgd(0.05, 0.9, nesterov=True))",
    ),
    keras(
        "loss-scale-factor",
        "SGD(0.05, loss_scale_factor=1024.0, global_clipnorm=1e-3)",
        "chain(scale(1 / 1024), clip_by_global_norm(1e-3), sgd(0.05))",
    ),
)


def test_noisy_sgd_is_sgd_on_noisy_gradients() -> None:
    zeros = jnp.zeros(40_000)
    tx = jopt.noisy_sgd(0.5, eta=0.04, gamma=0.5, key=0)
    state = tx.init(zeros)
    for t in (1, 2, 3):
        updates, state = tx.update(zeros, state)
        np.testing.assert_allclose(jnp.var(updates), 0.25 * 0.04 / t**0.5, rtol=0.03)
    again = jopt.noisy_sgd(0.5, 0.04, 0.5, jax.random.key(0))
    chex.assert_trees_all_equal(
        again.update(zeros, again.init(zeros))[0],
        tx.update(zeros, tx.init(zeros))[0],
    )


@pytest.mark.parametrize("factory", [jopt.sgd, jopt.rmsprop])
def test_weight_decay_needs_a_momentum_without_the_learning_rate(factory: Any) -> None:
    with pytest.raises(
        ValueError, match=r"weight_decay=0.1 needs lr_in_momentum=False"
    ):
        factory(0.1, momentum=0.9, lr_in_momentum=True, weight_decay=0.1)
    factory(0.1, lr_in_momentum=True, weight_decay=0.1)


def test_weight_decay_may_leave_out_biases() -> None:
    tx = jopt.sgd(0.5, 0.9, weight_decay=0.1, mask="kernel")
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["bias"], [0.0])
    np.testing.assert_allclose(updates["kernel"], [-0.05], rtol=1e-6)
