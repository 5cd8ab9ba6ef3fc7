"""FTRL-proximal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

import jopt
from tests.laws.case import Case
from tests.parity.row import keras, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def ftrl(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1: Scalar = 0.0,
    l2: Scalar = 0.0,
    l2_shrinkage: Scalar = 0.0,
    beta: Scalar = 0.0,
) -> Iterator[Array]:
    """McMahan et al., 2013, "Ad click prediction", algorithm 1.

    Its lambda_2 is ``2 * l2``; the shrinkage is a gradient that ``n`` does not see.
    """
    p = double(p)
    z = np.zeros_like(p)
    n = np.full(p.shape, initial_accumulator_value)
    for t, g in steps(grads):
        alpha, lambda1 = at(learning_rate, t), at(l1, t)
        n_old, n = n, n + g**2
        root_old, root = n_old**-learning_rate_power, n**-learning_rate_power
        sigma = (root - root_old) / alpha
        z = z + g + 2 * at(l2_shrinkage, t) * p - sigma * p
        q = (at(beta, t) + root) / alpha + 2 * at(l2, t)
        is_zero = np.abs(z) <= lambda1
        q = np.where(is_zero, 1.0, q)  # not 0 / 0 where no gradient was seen
        p = np.where(is_zero, 0.0, -(z - np.sign(z) * lambda1) / q)
        yield p


CASES = [
    Case(
        "ftrl",
        {"l1": 0.001, "l2": 0.01, "beta": 0.1},
        moves_without_gradient=True,
        complex_leaves=False,
        rate_for_descent=0.5,
    ),
    Case(
        "ftrl",
        {"learning_rate_power": -0.4, "l2_shrinkage": 0.01},
        complex_leaves=False,
        rate_for_descent=0.5,
    ),
]

ROWS = (
    keras("ftrl", "Ftrl(0.05)", "ftrl(0.05)"),
    keras("ftrl-schedule", "Ftrl(DECAY)", "ftrl(DECAY)"),
    keras(
        "ftrl-regularized",
        "Ftrl(0.05, l1_regularization_strength=0.01, l2_regularization_strength=0.1,"
        " l2_shrinkage_regularization_strength=0.05, beta=0.2)",
        "ftrl(0.05, l1=0.01, l2=0.1, l2_shrinkage=0.05, beta=0.2)",
    ),
    keras(
        "ftrl-regularized-schedule",
        "Ftrl(DECAY, l1_regularization_strength=0.01, l2_regularization_strength=0.1,"
        " l2_shrinkage_regularization_strength=0.05, beta=0.2)",
        "ftrl(DECAY, l1=0.01, l2=0.1, l2_shrinkage=0.05, beta=0.2)",
    ),
    keras(
        "ftrl-power",
        "Ftrl(0.05, learning_rate_power=-0.4, l1_regularization_strength=0.01)",
        "ftrl(0.05, -0.4, l1=0.01)",
    ),
    keras(
        "ftrl-power-zero",
        "Ftrl(0.05, learning_rate_power=0.0, initial_accumulator_value=0.5, beta=0.2)",
        "ftrl(0.05, 0.0, 0.5, beta=0.2)",
    ),
    # Its lambda_2 is twice Keras's l2.
    torch_like(
        "pytorch_optimizer",
        "ftrl",
        "FTRL(lr=0.05, beta=0.2, lambda_1=0.01, lambda_2=0.2)",
        "ftrl(0.05, -0.5, 0.0, l1=0.01, l2=0.1, beta=0.2)",
    ),
)


def test_l1_of_ftrl_makes_weights_exactly_zero() -> None:
    tx = jopt.ftrl(0.5, l1=1.0)
    params = jnp.zeros(2)
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(jnp.array([0.01, 4.0]), state, params)
        params = jopt.apply_updates(params, updates)
    assert float(params[0]) == 0.0
    assert float(params[1]) < -0.1
