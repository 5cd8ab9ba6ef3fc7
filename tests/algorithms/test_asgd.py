"""ASGD."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import random_matrices
from tests.laws.case import Case
from tests.parity.row import torch
from tests.twins.base import Array, Scalar, at, double, steps


def asgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    lambd: Scalar = 1e-4,
    alpha: Scalar = 0.75,
    t0: Scalar = 1e6,
    average: bool = False,
) -> Iterator[Array]:
    """Xu, 2011, "Towards optimal one pass large scale learning", algorithm 2.

    ``average`` yields the average of the parameters instead.
    """
    p = double(p)
    ax = p
    for t, g in steps(grads):
        lr, decay = at(learning_rate, t), at(lambd, t)
        eta = lr / (1 + decay * lr * (t - 1)) ** at(alpha, t)
        p = (1 - decay * eta) * p - eta * g
        ax = ax + (p - ax) / max(1.0, t - 1 - at(t0, t))
        yield ax if average else p


CASES = [
    Case("asgd", {"lambd": 0.1, "t0": 5.0}, moves_without_gradient=True),
]

ROWS = (
    torch("asgd", "ASGD(lr=0.05)", "asgd(0.05)"),
    torch(
        "asgd-decay",
        "ASGD(lr=0.05, lambd=0.1, alpha=0.5, t0=3, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), asgd(0.05, 0.1, 0.5, 3))",
    ),
    # torch's step size is that of the learning rate one step before.
    torch(
        "asgd-schedule",
        "ASGD(lr=0.05, lambd=0.1)",
        "asgd(join_schedules([constant_schedule(0.05), DECAY], [1]), 0.1)",
    ),
)


def test_asgd_averages_the_parameters_after_t0_and_shows_the_average() -> None:
    params, grads = random_matrices(8)
    tx = jopt.asgd(0.1, lambd=0.1, t0=3.0)
    twin = functools.partial(asgd, learning_rate=0.1, lambd=0.1, t0=3.0, average=True)
    expected = list(twin(np.asarray(params), [np.asarray(g) for g in grads]))
    state = tx.init(params)
    chex.assert_trees_all_equal(jopt.eval_params(tx, state, params), params)
    for g, average in zip(grads, expected, strict=True):
        params, state = jopt.step(tx, g, state, params)
        np.testing.assert_allclose(state["asgd"].ax, average, rtol=1e-5)
        for outer in (tx, jopt.chain(tx)):
            shown = jopt.eval_params(outer, state, params)
            chex.assert_trees_all_equal(shown, state["asgd"].ax)
    assert not np.allclose(state["asgd"].ax, params)


def test_a_late_rate_acts_on_the_step_after_the_next():
    """torch: eta is computed at the end of a step, with the rate it has then."""
    for late, expected in ((True, [0.9, 0.8, 0.7, 0.69]), (False, [0.9, 0.8, 0.79])):
        tx = jopt.asgd(0.1, lambd=0.0, late_rate=late)
        params, steps = jnp.array([1.0]), []
        state = tx.init(params)
        for step in range(len(expected)):
            if step == 2:
                state = jopt.set_hyperparams(tx, state, learning_rate=0.01)
            params, state = jopt.step(tx, jnp.ones(1), state, params)
            steps.append(float(params[0]))
        np.testing.assert_allclose(steps, expected, 1e-6)
