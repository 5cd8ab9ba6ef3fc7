"""Nadam and NadamW."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import updates_of
from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, EpsMode, Scalar, at, denominator, double, steps


def nadam(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    momentum_decay: Scalar | None = None,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Dozat, 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.

    Momentum rises as ``mu_t = b1 (1 - 0.96**(t * momentum_decay) / 2)``, or is ``b1``.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    product = 1.0  # mu_1 mu_2 ... mu_t
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        if momentum_decay is None:
            mu, mu_next = beta1, beta1
            product = beta1**t
        else:
            psi = at(momentum_decay, t)
            mu = beta1 * (1 - 0.5 * 0.96 ** (t * psi))
            mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * psi))
            product = product * mu
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * m_hat / root
        yield p


def nadamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 1e-4,
    momentum_decay: Scalar | None = None,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Dozat, 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.

    With AdamW's weight decay. Momentum is ``b1``, or rises to it.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    product = 1.0  # mu_1 mu_2 ... mu_t
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        if momentum_decay is None:
            mu, mu_next = beta1, beta1
            product = beta1**t
        else:
            psi = at(momentum_decay, t)
            mu = beta1 * (1 - 0.5 * 0.96 ** (t * psi))
            mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * psi))
            product = product * mu
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * (m_hat / root + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("nadam"),
    Case("nadam", {"momentum_decay": 1.0, "eps": 1e-7}),
    Case("nadam", {"momentum_decay": 0.004}),
    transform("scale_by_nadam", core_of(nadam), momentum_decay=1.0),
    Case("nadamw", {"weight_decay": 0.1, "momentum_decay": 0.004}),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    keras("nadam", "Nadam(0.01)", "nadam(0.01, eps=1e-7, momentum_decay=1.0)"),
    keras(
        "nadam-schedule", "Nadam(DECAY)", "nadam(DECAY, eps=1e-7, momentum_decay=1.0)"
    ),
    torch("nadam", "NAdam(lr=0.01)", "nadam(0.01, momentum_decay=0.004)"),
    torch(
        "nadam-momentum-decay",
        "NAdam(lr=0.01, momentum_decay=1.0)",
        "nadam(0.01, momentum_decay=1.0)",
    ),
    torch("nadam-schedule", "NAdam(lr=0.05)", "nadam(DECAY, momentum_decay=0.004)"),
    optax("nadam", "nadam(0.01)"),
    optax("nadam-schedule", "nadam(cosine_decay_schedule(0.05, 8), 0.8, 0.95)"),
    torch(
        "nadam-l2",
        "NAdam(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), nadam(0.01, momentum_decay=0.004))",
    ),
    torch(
        "nadam-decoupled",
        "NAdam(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)",
        "nadamw(DECAY, weight_decay=0.1, momentum_decay=0.004)",
    ),
    torch(
        "nadam-maximize",
        "NAdam(lr=0.01, maximize=True)",
        "chain(scale(-1.0), nadam(0.01, momentum_decay=0.004))",
    ),
    optax("nadamw", "nadamw(0.01)"),
    optax("nadamw-weight-decay", f"nadamw({COSINE}, 0.8, 0.95, weight_decay=0.1)"),
)


def test_nadamw_is_optaxs_adamw_with_nesterov() -> None:
    params = jnp.array([1.0, -2.0])
    grads = [params, -params, 2 * params]
    chex.assert_trees_all_equal(
        updates_of(jopt.nadamw(0.1), grads, params),
        updates_of(jopt.adamw(0.1, nesterov=True), grads, params),
    )
