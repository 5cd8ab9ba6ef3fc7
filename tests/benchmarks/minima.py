"""Problems with a minimum, for `tests.benchmarks.solvers`.

Those with a number are of Moré, Garbow & Hillstrom, "Testing unconstrained optimization
software", 1981: residuals, whose squares are summed, and where to start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    fun: Callable[[Any], Any]
    x0: np.ndarray


def squares(residuals: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda x: jnp.sum(jnp.concatenate(jnp.atleast_1d(*residuals(x))) ** 2)


def rosenbrock(n: int) -> Problem:
    def fun(x):
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return Problem(fun, np.resize([-1.2, 1.0], n))


def powell(n: int) -> Problem:
    """13, and 22 in more dimensions."""

    def residuals(x):
        a, b, c, d = x.reshape(-1, 4).T
        return (
            a + 10 * b,
            5**0.5 * (c - d),
            (b - 2 * c) ** 2,
            10**0.5 * (a - d) ** 2,
        )

    return Problem(squares(residuals), np.resize([3.0, -1, 0, 1], n))


def broyden(n: int) -> Problem:
    """30, tridiagonal."""

    def residuals(x):
        wide = jnp.pad(x, 1)
        return (3 - 2 * x) * x - wide[:-2] - 2 * wide[2:] + 1, jnp.zeros(1)

    return Problem(squares(residuals), -np.ones(n))


def freudenstein_roth(x):  # 2
    a, b = x
    return (
        -13 + a + ((5 - b) * b - 2) * b,
        -29 + a + ((b + 1) * b - 14) * b,
    )


def powell_badly_scaled(x):  # 3
    return 1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001


def brown_badly_scaled(x):  # 4
    return x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2


def beale(x):  # 5
    y, i = jnp.array([1.5, 2.25, 2.625]), jnp.arange(1, 4)
    return y - x[0] * (1 - x[1] ** i), jnp.zeros(1)


def jennrich_sampson(x):  # 6
    i = jnp.arange(1.0, 11)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1])), jnp.zeros(1)


def helical_valley(x):  # 7
    angle = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    angle = jnp.where(angle < -0.25, angle + 1, angle)
    return 10 * (x[2] - 10 * angle), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]


def bard(x):  # 8
    y = jnp.array(
        [
            0.14,
            0.18,
            0.22,
            0.25,
            0.29,
            0.32,
            0.35,
            0.39,
            0.37,
            0.58,
            0.73,
            0.96,
            1.34,
            2.1,
            4.39,
        ]
    )
    u = jnp.arange(1.0, 16)
    v = 16 - u
    return y - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2])), jnp.zeros(1)


def gaussian(x):  # 9
    half = [0.0009, 0.0044, 0.0175, 0.054, 0.1295, 0.242, 0.3521]
    y = jnp.array([*half, 0.3989, *half[::-1]])
    t = (8 - jnp.arange(1.0, 16)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y, jnp.zeros(1)


def box_3d(x):  # 12
    t = jnp.arange(1.0, 11) / 10
    fit = jnp.exp(-t * x[0]) - jnp.exp(-t * x[1])
    return fit - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t)), jnp.zeros(1)


def wood(x):  # 14
    a, b, c, d = x
    return (
        10 * (b - a**2),
        1 - a,
        90**0.5 * (d - c**2),
        1 - c,
        10**0.5 * (b + d - 2),
        (b - d) / 10**0.5,
    )


def kowalik_osborne(x):  # 15
    y = jnp.array(
        [
            0.1957,
            0.1947,
            0.1735,
            0.16,
            0.0844,
            0.0627,
            0.0456,
            0.0342,
            0.0323,
            0.0235,
            0.0246,
        ]
    )
    u = jnp.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
    fit = x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])
    return y - fit, jnp.zeros(1)


def brown_dennis(x):  # 16
    t = jnp.arange(1.0, 21) / 5
    first = x[0] + t * x[1] - jnp.exp(t)
    return first**2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2, jnp.zeros(1)


def biggs_exp6(x):  # 18
    t = jnp.arange(1.0, 14) / 10
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    fit = x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1])
    return fit + x[5] * jnp.exp(-t * x[4]) - y, jnp.zeros(1)


def penalty(x):  # 23
    return 1e-5**0.5 * (x - 1), jnp.sum(x**2) - 0.25


def variably_dimensioned(x):  # 25
    weighted = jnp.sum(jnp.arange(1.0, x.size + 1) * (x - 1))
    return x - 1, weighted, weighted**2


def trigonometric(x):  # 26
    i = jnp.arange(1.0, x.size + 1)
    return x.size - jnp.sum(jnp.cos(x)) + i * (1 - jnp.cos(x)) - jnp.sin(x), jnp.zeros(
        1
    )


def discrete_boundary_value(x):  # 28
    h = 1 / (x.size + 1)
    t = jnp.arange(1.0, x.size + 1) * h
    wide = jnp.pad(x, 1)
    return 2 * x - wide[:-2] - wide[2:] + h**2 * (x + t + 1) ** 3 / 2, jnp.zeros(1)


SMALL = {
    freudenstein_roth: [0.5, -2],
    powell_badly_scaled: [0, 1],
    brown_badly_scaled: [1, 1],
    beale: [1, 1],
    jennrich_sampson: [0.3, 0.4],
    helical_valley: [-1, 0, 0],
    bard: [1, 1, 1],
    gaussian: [0.4, 1, 0],
    box_3d: [0, 10, 20],
    wood: [-3, -1, -3, -1],
    kowalik_osborne: [0.25, 0.39, 0.415, 0.39],
    brown_dennis: [25, 5, -5, -1],
    biggs_exp6: [1, 2, 1, 1, 1, 1],
    penalty: np.arange(1, 11),
    variably_dimensioned: 1 - np.arange(1, 11) / 10,
    trigonometric: np.full(10, 0.1),
    discrete_boundary_value: np.arange(1, 11) / 11 * (np.arange(1, 11) / 11 - 1),
}


def logistic(name: str) -> Problem:
    """Multinomial logistic regression, with a little weight decay."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    x, y = np.asarray(data.data), np.asarray(data.target)
    if name == "digits":
        x = x / 16
    d, k = x.shape[1], y.max() + 1

    def fun(flat):
        weights, bias = flat[: d * k].reshape(d, k), flat[d * k :]
        scores = jax.nn.log_softmax(x @ weights + bias[None])
        fit = -jnp.mean(jnp.take_along_axis(scores, y[:, None], 1))
        return fit + 5e-5 * jnp.sum(weights**2)

    return Problem(fun, np.zeros(d * k + k))


def network(hidden: int = 16) -> Problem:
    """A network with a hidden layer, on 300 digits."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300]
    cut = np.cumsum([64 * hidden, hidden, hidden * 10])

    def fun(flat):
        w1, b1, w2, b2 = jnp.split(flat, cut)
        h = jnp.tanh(x @ w1.reshape(64, hidden) + b1[None])
        scores = jax.nn.log_softmax(h @ w2.reshape(hidden, 10) + b2[None])
        fit = -jnp.mean(jnp.take_along_axis(scores, y[:, None], 1))
        return fit + 5e-4 * jnp.sum(flat**2)

    x0 = np.random.default_rng(0).standard_normal(cut[-1] + 10) * 0.2
    return Problem(fun, x0)


def problems() -> dict[str, Problem]:
    """All problems, the large ones first."""
    found = {f"rosenbrock-{n}": rosenbrock(n) for n in (2, 100, 1000)}
    found |= {"powell-100": powell(100), "broyden-100": broyden(100)}
    found |= {"digits": logistic("digits"), "breast cancer": logistic("breast_cancer")}
    found |= {"network": network(), "powell singular": powell(4)}
    for residuals, x0 in SMALL.items():
        name = residuals.__name__.replace("_", " ")
        found[name] = Problem(squares(residuals), np.array(x0, float))
    return found
