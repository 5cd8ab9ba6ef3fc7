"""Adan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import updates_of
from tests.laws.case import Case, core_of, transform
from tests.parity.row import pytorch_optimizer
from tests.twins.base import Array, Scalar, at, double, steps


def adan(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    no_prox: bool = False,
) -> Iterator[Array]:
    """Xie et al., 2022, "Adan: adaptive Nesterov momentum algorithm", algorithm 1.

    The paper's betas are one minus these. Bias corrections as in its authors' code.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros_like(p)
    n = np.zeros(p.shape)
    g_before = None
    for t, g in steps(grads):
        beta1, beta2, beta3 = 1 - at(b1, t), 1 - at(b2, t), 1 - at(b3, t)
        d = g - g if g_before is None else g - g_before
        m = (1 - beta1) * m + beta1 * g
        v = (1 - beta2) * v + beta2 * d
        n = (1 - beta3) * n + beta3 * np.abs(g + (1 - beta2) * d) ** 2
        m_hat = m / (1 - (1 - beta1) ** t)
        v_hat = v / (1 - (1 - beta2) ** t)
        n_hat = n / (1 - (1 - beta3) ** t)
        eta = at(learning_rate, t) / (np.sqrt(n_hat + at(eps_root, t)) + at(eps, t))
        step = eta * (m_hat + (1 - beta2) * v_hat)
        shrinkage = at(learning_rate, t) * at(weight_decay, t)
        p = (1 - shrinkage) * p - step if no_prox else (p - step) / (1 + shrinkage)
        g_before = g
        yield p


CASES = [
    Case("adan"),
    Case("adan", {"weight_decay": 0.1, "eps_root": 1e-8}),
    transform("scale_by_adan", core_of(adan)),
]

ROWS = (
    pytorch_optimizer("adan", "Adan(lr=0.01)", "adan(0.01)"),
    pytorch_optimizer(
        "adan-betas",
        "Adan(lr=0.01, betas=(0.9, 0.8, 0.7), eps=1e-5)",
        "adan(0.01, 0.9, 0.8, 0.7, 1e-5)",
    ),
    pytorch_optimizer(
        "adan-proximal-decay-schedule",
        "Adan(lr=0.05, weight_decay=0.1)",
        "adan(DECAY, weight_decay=0.1)",
    ),
    pytorch_optimizer(
        "adan-no-prox",
        "Adan(lr=0.05, weight_decay=0.1, weight_decouple=True)",
        "adan(DECAY, weight_decay=0.1, no_prox=True)",
    ),
)


def test_adans_state_is_the_same_with_and_without_decay() -> None:
    params = jnp.ones(2)
    states = [
        jopt.adan(0.1, weight_decay=decay, no_prox=no_prox).init(params)
        for decay in (0.0, 0.1)
        for no_prox in (False, True)
    ]
    shown = [{name: x._fields for name, x in state.items()} for state in states]
    assert all(x == shown[0] for x in shown)
    tx = jopt.adan(0.1, weight_decay=0.1)
    state = jopt.set_hyperparams(tx, tx.init(params), learning_rate=0.0)
    chex.assert_trees_all_equal(tx.update(params, state, params)[0], jnp.zeros(2))


def test_adan_looks_at_how_the_gradient_changes() -> None:
    steady = [jnp.array([1.0])] * 2
    growing = [jnp.array([1.0]), jnp.array([2.0])]
    tx = jopt.scale_by_adan(b1=0.5, b2=0.5, b3=0.0)
    np.testing.assert_allclose(updates_of(tx, steady, steady[0])[1], [1.0], rtol=1e-6)
    # m^ = 5/3, v^ = 2/3, n = (2 + 0.5)^2
    found = updates_of(tx, growing, steady[0])[1]
    np.testing.assert_allclose(found, [(5 / 3 + 1 / 3) / 2.5], rtol=1e-6)
