"""Momentum, averages of gradients, and gradients for every kth step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

import jopt
from tests.laws.case import Case, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def trace(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: Scalar,
    nesterov: bool = False,
) -> Iterator[Array]:
    """Polyak, 1964, "Some methods of speeding up the convergence of iteration methods".

    ``nesterov``: Sutskever et al., 2013, "On the importance of initialization".
    """
    b = np.zeros_like(double(p))
    for t, g in steps(grads):
        mu = at(decay, t)
        b = mu * b + g
        yield g + mu * b if nesterov else b


def ema(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: Scalar,
    debias: bool = True,
) -> Iterator[Array]:
    """The exponential moving average.

    ``debias``: Kingma & Ba, 2015, "Adam: a method for stochastic optimization".
    """
    m = np.zeros_like(double(p))
    for t, g in steps(grads):
        beta = at(decay, t)
        m = beta * m + (1 - beta) * g
        yield m / (1 - beta**t) if debias else m


def apply_every(p: Array, grads: Iterable[Array], *, k: int = 1) -> Iterator[Array]:
    """No paper: a sum of ``k`` gradients at every ``k``-th step, zero at the others."""
    total = np.zeros_like(double(p))
    for t, g in steps(grads):
        total = total + g
        if t % k:
            yield np.zeros_like(total)
        else:
            yield total
            total = np.zeros_like(total)


CASES = [
    transform("ema", decay=0.9),
    transform("ema", decay=0.9, debias=False),
    Case(
        "trace",
        {"decay": 0.9, "nesterov": True},
        learning_rate=None,
        largest_float16=1e4,  # the sum of three is the update, and has to fit
    ),
    transform("apply_every", k=4),
]

ROWS = (
    optax("trace", "chain(trace(0.9, nesterov=True), scale(-0.05))"),
    optax("ema", "chain(ema(0.9), scale(-0.05))"),
    optax("ema-biased", "chain(ema(0.9, debias=False), scale(-0.05))"),
    optax("apply-every", "chain(apply_every(3), sgd(0.05))"),
)


def test_apply_every_forgets_an_infinite_sum() -> None:
    tx = jopt.apply_every(2)
    state = tx.init(jnp.zeros(1))
    found = []
    for g in (jnp.inf, 1.0, 2.0, 3.0):
        updates, state = tx.update(jnp.array([g]), state)
        found.append(float(updates[0]))
    assert found == [0.0, jnp.inf, 0.0, 5.0]
