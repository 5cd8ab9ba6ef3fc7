"""Fits: curves, an image, the solution of a differential equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_image

from jopt.inspect import RaceTask
from tests.benchmarks.arena.layers import dense, mlp, mlp_init
from tests.benchmarks.arena.problem import LeastSquares, OneByOne, Problem, exact


def curve(
    model: Callable[[Any, np.ndarray], jax.Array],
    true: list[float],
    start: list[float],
    stop: float,
) -> RaceTask:
    """Least squares of 50 values of a curve without noise, from a start beside it."""
    x = np.linspace(0, stop, 50, dtype=np.float32)
    y = model(jnp.asarray(true), x)
    begin = np.asarray(start, np.float32)

    def init(key):
        return begin * (1 + 0.05 * jax.random.normal(key, begin.shape))

    def residuals(p):
        return model(p, x) - y

    def loss(p):
        return jnp.mean(residuals(p) ** 2)

    return exact(init, loss, 2000, LeastSquares, residuals=residuals)


def exponentials() -> RaceTask:
    def model(p, x):
        return p[0] * jnp.exp(-p[1] * x) + p[2] * jnp.exp(-p[3] * x)

    return curve(model, [2.0, 0.3, 1.0, 2.0], [1.0, 0.1, 2.0, 1.0], 5)


def rational() -> RaceTask:
    def model(p, x):
        return (p[0] + p[1] * x + p[2] * x**2) / (1 + p[3] * x + p[4] * x**2)

    return curve(model, [1.0, -0.5, 0.3, 0.4, 0.2], [0.5, 0.0, 0.1, 0.1, 0.1], 5)


def peaks() -> RaceTask:
    def model(p, x):
        one = p[0] * jnp.exp(-(((x - p[1]) / p[2]) ** 2))
        return one + p[3] * jnp.exp(-(((x - p[4]) / p[5]) ** 2))

    return curve(model, [1.0, 3, 1, 2, 6, 1.5], [1.5, 2.5, 1.5, 1.5, 6.5, 1.0], 10)


def image(steps: int = 300, width: int = 24) -> RaceTask:
    """48 x 48 grey pixels of a photograph by a network with sines: Sitzmann et al."""
    pixels = load_sample_image("china.jpg")[100:340:5, 200:440:5].mean(-1) / 255
    axis = np.linspace(-1, 1, len(pixels), dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    x = jnp.asarray(grid.reshape(-1, 2))
    y = pixels.astype(np.float32).reshape(-1, 1)

    def init(key):
        first = jax.random.uniform(jax.random.fold_in(key, 0), (2, width), minval=-1)
        params = mlp_init([width, width, width, 1], gain=2**0.5)(key)
        return {**params, "embed": {"kernel": 15 * first, "bias": jnp.zeros(width)}}

    def loss(params):
        hidden = {name: x for name, x in params.items() if name != "embed"}
        features = jnp.sin(dense(params["embed"], x))
        return jnp.mean((mlp(hidden, features, jnp.sin) - y) ** 2)

    return exact(init, loss, steps, OneByOne)


def poisson(steps: int = 1000, width: int = 16) -> RaceTask:
    """-u'' = f on [0, 1] with u = 0 at both ends, by a network: Raissi et al., 2019."""
    x = jnp.linspace(0, 1, 64)

    def solution(x):
        return jnp.sin(2 * jnp.pi * x) + 0.2 * jnp.sin(6 * jnp.pi * x)

    def curvature(u):
        def slope(x):
            return jax.jvp(u, (x,), (jnp.ones_like(x),))[1]

        return lambda x: jax.jvp(slope, (x,), (jnp.ones_like(x),))[1]

    force = -curvature(solution)(x)

    def u(params):
        return lambda x: mlp(params, x[:, None], jnp.tanh)[:, 0]

    def residuals(params):
        inside = curvature(u(params))(x) + force
        ends = 10 * u(params)(jnp.array([0.0, 1.0]))
        return inside / x.size**0.5, ends / 2**0.5

    def loss(params):
        return sum(jnp.sum(r**2) for r in residuals(params))

    def error(params, split):
        off = u(params)(x) - solution(x)
        return jnp.linalg.norm(off) / jnp.linalg.norm(solution(x))

    def init(key):
        params = mlp_init([1, width, width, 1])(key)
        bias = jax.random.uniform(key, (width,), minval=-3, maxval=3)
        first = {"kernel": 3 * params["hidden_1"]["kernel"], "bias": bias}
        return {**params, "hidden_1": first}

    return exact(init, loss, steps, LeastSquares, residuals=residuals, metric=error)


PROBLEMS = {
    "w6_exponentials": Problem(
        title="A fit of two exponentials",
        about="Four parameters, 50 values without noise.",
        task=exponentials,
        goal=1e-6,
        solvers=("lbfgs", "levenberg_marquardt"),
    ),
    "w6_rational": Problem(
        title="A fit of a rational function",
        about="Five parameters, 50 values without noise.",
        task=rational,
        goal=1e-6,
        solvers=("lbfgs", "levenberg_marquardt"),
    ),
    "w6_peaks": Problem(
        title="A fit of two peaks",
        about="Six parameters, 50 values without noise.",
        task=peaks,
        goal=1e-6,
        solvers=("lbfgs", "levenberg_marquardt"),
    ),
    "w8": Problem(
        title="An image as a network",
        about=(
            "A network with sines, 24-24-24-1 after random frequencies, learns 48 x 48 "
            "pixels of a photograph, more than it has parameters: the squared error, "
            "300 steps of all pixels."
        ),
        task=image,
        solvers=("lbfgs",),
    ),
    "w16": Problem(
        title="Poisson's equation",
        about=(
            "A network of 1-16-16-1 with tanh learns -u'' = f at 64 points, 1,000 "
            "steps: the relative error of u."
        ),
        task=poisson,
        solvers=("lbfgs", "levenberg_marquardt"),
    ),
}
