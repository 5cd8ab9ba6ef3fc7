"""Yogi."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import updates_of
from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax, pytorch_optimizer
from tests.twins.base import Array, EpsMode, Scalar, at, denominator, double, steps


def yogi(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: float = 1e-6,
    initial_mu: float = 0.0,
    eps_mode: EpsMode = "after",
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zaheer et al., 2018, "Adaptive methods for nonconvex optimization", algorithm 2.

    With Adam's bias corrections, which the paper leaves out.
    """
    p = double(p)
    m = np.zeros_like(p) + initial_mu
    v = np.full(p.shape, initial_accumulator_value)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        g2 = np.abs(g) ** 2
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * np.sign(v - g2) * g2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        u = m_hat / root + at(weight_decay, t) * p
        p = p - at(learning_rate, t) * u
        yield p


CASES = [
    Case("yogi"),
    Case("yogi", {"weight_decay": 0.1}),
    transform("scale_by_yogi", core_of(yogi)),
]

ROWS = (
    pytorch_optimizer("yogi", "Yogi(lr=0.01)", "yogi(0.01, initial_mu=1e-6)"),
    pytorch_optimizer(
        "yogi-accumulator",
        "Yogi(lr=0.01, betas=(0.8, 0.95), initial_accumulator=0.1, eps=1e-5)",
        "yogi(0.01, 0.8, 0.95, 1e-5, initial_accumulator_value=0.1, initial_mu=0.1)",
    ),
    pytorch_optimizer(
        "yogi-weight-decay-schedule",
        "Yogi(lr=0.05, weight_decay=0.1)",
        "yogi(DECAY, weight_decay=0.1, initial_mu=1e-6)",
    ),
    optax("yogi", "yogi(0.01)", "yogi(0.01, initial_mu=1e-6)"),
    optax(
        "scale-by-yogi",
        "chain(scale_by_yogi(0.8, 0.95, 1e-5, 1e-8, 0.1), scale(-0.01))",
        "chain(scale_by_yogi(0.8, 0.95, 1e-5, 1e-8, 0.1, initial_mu=0.1),"
        " scale(-0.01))",
    ),
)


def test_yogi_leaves_parameters_without_gradient_where_they_are() -> None:
    zeros = jnp.zeros(3)
    for update in updates_of(jopt.yogi(0.1), [zeros] * 3, zeros):
        chex.assert_trees_all_equal(update, zeros)
    as_in_optax = updates_of(jopt.yogi(0.1, initial_mu=1e-6), [zeros], zeros)
    assert jnp.all(jnp.abs(as_in_optax[0]) > 1e-5)


def test_yogis_second_moment_survives_an_overflow_and_a_decrease() -> None:
    tx = jopt.scale_by_yogi(b2=0.9)
    huge, small = jnp.array([1e30]), jnp.array([1.0])
    for update in updates_of(tx, [huge, huge, small, huge], huge):
        chex.assert_tree_all_finite(update)
    state = tx.init(small)
    _, state = tx.update(small, state)
    np.testing.assert_allclose(state.nu, [0.1], rtol=1e-4)
    _, state = tx.update(0.1 * small, state)  # by a tenth of 0.01, not of 0.1
    np.testing.assert_allclose(state.nu, [0.099], rtol=1e-4)
