"""AdEMAMix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import updates_of
from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax, pytorch_optimizer
from tests.twins.base import Array, Scalar, at, double, steps


def ademamix(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    alpha: Scalar = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    b3_warmup: int | None = None,
    alpha_warmup: int | None = None,
) -> Iterator[Array]:
    """Pagliardini, Ablin & Grangier, 2024, "The AdEMAMix optimizer", algorithm 1.

    The schedule of ``b3`` is the paper's f, linear in the half-life.
    """
    p = double(p)
    m1 = np.zeros_like(p)
    m2 = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2, beta3 = at(b1, t), at(b2, t), at(b3, t)
        a = at(alpha, t)
        if alpha_warmup is not None:
            a = min(t * a / alpha_warmup, a)
        if b3_warmup is not None and t < b3_warmup:
            start, end, share = np.log(beta1), np.log(beta3), t / b3_warmup
            beta3 = np.exp(start * end / ((1 - share) * end + share * start))
        m1 = beta1 * m1 + (1 - beta1) * g
        m2 = beta3 * m2 + (1 - beta3) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m1_hat = m1 / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = (m1_hat + a * m2) / (np.sqrt(v_hat + at(eps_root, t)) + at(eps, t))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("ademamix", {"weight_decay": 0.1}),
    Case("ademamix", {"b3_warmup": 15, "alpha_warmup": 15}),
    transform("scale_by_ademamix", core_of(ademamix)),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    pytorch_optimizer("ademamix", "AdEMAMix(lr=0.01)", "ademamix(0.01)"),
    pytorch_optimizer(
        "ademamix-betas",
        "AdEMAMix(lr=0.01, betas=(0.8, 0.95, 0.99), alpha=2.0, eps=1e-5)",
        "ademamix(0.01, 0.8, 0.95, 0.99, 2.0, 1e-5)",
    ),
    pytorch_optimizer(
        "ademamix-warmups",
        "AdEMAMix(lr=0.05, t_alpha_beta3=15, weight_decay=0.1, weight_decouple=True)",
        "ademamix(DECAY, b3_warmup=15, alpha_warmup=15, weight_decay=0.1)",
    ),
    optax("ademamix", "ademamix(0.01)"),
    optax(
        "ademamix-schedules",
        f"ademamix({COSINE}, 0.8, 0.95, cosine_decay_schedule(0.99, 12, 0.9),"
        " cosine_decay_schedule(3.0, 12), 1e-5, 1e-8, weight_decay=0.1)",
    ),
)


def test_ademamixs_warmup_is_linear_in_the_half_life() -> None:
    # With g = 1 in one step only, m2 decays by b3 of each later step.
    tx = jopt.scale_by_ademamix(b1=0.5, b3=0.9999, b3_warmup=10)
    state = tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.ones(1), state)
    m2 = [float(state.m2[0])]
    for _ in range(12):
        _, state = tx.update(jnp.zeros(1), state)
        m2.append(float(state.m2[0]))
    half_lives = -math.log(2) / np.log(np.divide(m2[1:], m2[:-1]))
    start, end = 1.0, -math.log(2) / math.log(0.9999)
    share = np.minimum(np.arange(2, 14) / 10, 1)
    np.testing.assert_allclose(half_lives, start + share * (end - start), rtol=2e-3)


def test_ademamixs_slow_average_has_all_digits_of_one_minus_b3() -> None:
    g = jnp.ones(1)
    for options in ({}, {"b3_warmup": 1}):
        tx = jopt.scale_by_ademamix(b3=0.9999, **options)
        _, state = tx.update(g, tx.init(g))
        np.testing.assert_allclose(state.m2, [1e-4], rtol=1e-6)


def test_ademamix_starts_as_adam_under_its_warmups() -> None:
    g = jnp.array([3.0])
    tx = jopt.scale_by_ademamix(b1=0.0, alpha=8.0, b3_warmup=100, alpha_warmup=1000)
    (first,) = updates_of(tx, [g], g)
    chex.assert_tree_all_finite(first)
    np.testing.assert_allclose(first, [1.0], atol=0.01)
