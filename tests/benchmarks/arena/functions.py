"""Functions without data: quadratics and the classics of optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.inspect import RaceTask
from tests.benchmarks.arena.problem import Problem, exact


def kronecker_quadratic(steps: int = 1000) -> RaceTask:
    """tr((X - T)' A (X - T) B) / 2 for X of 48 x 32; A and B of condition 1,000."""
    rng = np.random.default_rng(0)

    def curvature(n):
        basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
        return jnp.asarray(basis * np.logspace(-3, 0, n) @ basis.T, jnp.float32)

    a, b = curvature(48), curvature(32)
    target = jnp.asarray(rng.normal(size=(48, 32)), jnp.float32)

    def loss(params):
        x = params["kernel"] - target
        return jnp.vdot(x, a @ x @ b) / 2

    def init(key):
        return {"kernel": jax.random.normal(key, (48, 32))}

    return exact(init, loss, steps)


# No minimum is at 0: it would be a gift to whoever makes parameters smaller.


def near(*start: float) -> Callable[[jax.Array], jax.Array]:
    """Return ``init(key)``: a point, moved by a tenth."""
    at = jnp.asarray(start)
    return lambda key: at + 0.1 * jax.random.normal(key, at.shape)


def rosenbrock() -> RaceTask:
    def loss(p):
        return (1 - p[0]) ** 2 + (p[1] - p[0] ** 2) ** 2

    return exact(near(-7, -4), loss, 2000)


def beale() -> RaceTask:
    def loss(p):
        x, y = p
        return (
            (1.5 - x + x * y) ** 2
            + (2.25 - x + x * y**2) ** 2
            + (2.625 - x + x * y**3) ** 2
        )

    return exact(near(-2, -2), loss, 2000)


def rastrigin() -> RaceTask:
    def loss(p):
        x = p - 1
        return jnp.sum(10 + x**2 - 10 * jnp.cos(2 * jnp.pi * x))

    return exact(near(-1.2, 2.3), loss, 2000)


def ill_conditioned() -> RaceTask:
    """A diagonal Hessian of 512 values from 0.001 to 1,000."""
    curvature = jnp.asarray(np.logspace(-3, 3, 512), jnp.float32)

    def init(key):
        return jax.random.normal(key, (512,))

    return exact(init, lambda p: jnp.mean(curvature * (p - 1) ** 2), 1000)


def plateau() -> RaceTask:
    """Flat far from its minimum: the slope is 0.01 at the start."""

    def init(key):
        return 4 + 0.1 * jax.random.normal(key, (16,))

    return exact(init, lambda p: jnp.mean(1 - jnp.exp(-((p - 1) ** 2) / 2)), 1000)


def saddle() -> RaceTask:
    """Sixty-four saddles, one for each number, from close to them all."""

    def init(key):
        return 1e-4 * jax.random.normal(key, (64,))

    return exact(init, lambda p: jnp.mean((p**2 - 1) ** 2), 500)


def noisy(
    init: Callable[[jax.Array], Any],
    loss: Callable[[Any, jax.Array], jax.Array],
    metric: Callable[[Any], jax.Array],
    steps: int,
) -> RaceTask:
    """A loss that draws a key in each step, and the metric that it estimates."""
    none = np.zeros(1, np.float32)
    return RaceTask(
        init=init,
        loss=lambda params, batch, key: loss(params, batch),
        train=lambda key: key,
        validation=none,
        test=none,
        metric=lambda params, split: metric(params),
        steps=steps,
    )


def sparse_gradients() -> RaceTask:
    """A step sees one in 64 of 4,096 numbers."""
    target = jnp.asarray(np.random.default_rng(0).normal(size=4096), jnp.float32)

    def loss(p, key):
        seen = jax.random.bernoulli(key, 1 / 64, p.shape)
        return jnp.sum(jnp.where(seen, (p - target) ** 2, 0)) / 64

    def metric(p):
        return jnp.mean((p - target) ** 2)

    return noisy(lambda key: jnp.zeros(4096), loss, metric, 2000)


def wide_linear() -> RaceTask:
    """A map of 128 to 64 numbers from batches of 16; the error of its coefficients."""
    target = jnp.asarray(np.random.default_rng(0).normal(size=(128, 64)), jnp.float32)

    def loss(params, key):
        x = jax.random.normal(key, (16, 128))
        return jnp.mean((x @ (params["kernel"] - target)) ** 2)

    def metric(params):
        return jnp.linalg.norm(params["kernel"] - target) / jnp.linalg.norm(target)

    return noisy(lambda key: {"kernel": jnp.zeros((128, 64))}, loss, metric, 1000)


def noisy_quadratic() -> RaceTask:
    """Curvatures of 0.01 to 1, and noise of the gradient of 0.3 on each number."""
    curvature = jnp.asarray(np.logspace(-2, 0, 64), jnp.float32)

    def metric(p):
        return jnp.mean(curvature * (p - 1) ** 2) / 2

    def loss(p, key):
        noise = 0.3 * jax.random.normal(key, p.shape)
        return jnp.sum(curvature * (p - 1) ** 2 / 2 + noise * p)

    return noisy(lambda key: jax.random.normal(key, (64,)), loss, metric, 1000)


PROBLEMS = {
    "w1": Problem(
        title="A quadratic whose Hessian is a Kronecker product",
        about=(
            "48 x 32 parameters, a condition number of 1,000 on each side, and so of a "
            "million: what matrix methods are made for."
        ),
        task=kronecker_quadratic,
        solvers=("lbfgs",),
    ),
    "w5_rosenbrock": Problem(
        title="Rosenbrock's valley",
        about="(1 - x)² + (y - x²)² from about (-7, -4).",
        task=rosenbrock,
        solvers=("lbfgs",),
        goal=1e-9,
    ),
    "w5_beale": Problem(
        title="Beale's function",
        about="From about (-2, -2): flat, with a steep wall.",
        task=beale,
        solvers=("lbfgs",),
        goal=1e-8,
    ),
    "w5_rastrigin": Problem(
        title="Rastrigin's function",
        about="From about (-1.2, 2.3), among local minima.",
        task=rastrigin,
        goal=1e-2,
    ),
    "w5_ill_conditioned": Problem(
        title="An ill-conditioned diagonal",
        about="512 curvatures from 0.001 to 1,000: what Adam is made for.",
        task=ill_conditioned,
        solvers=("lbfgs",),
        goal=1e-3,
    ),
    "w5_plateau": Problem(
        title="A plateau",
        about="1 - exp(-(x - 1)²/2) from about 4, where it is nearly flat.",
        task=plateau,
        solvers=("lbfgs",),
        goal=1e-4,
    ),
    "w5_saddle": Problem(
        title="Saddles",
        about="(x² - 1)² for 64 numbers that begin within 0.0001 of 0.",
        task=saddle,
        solvers=("lbfgs",),
        goal=1e-4,
    ),
    "w5_sparse": Problem(
        title="Sparse gradients",
        about="A step sees one in 64 of 4,096 numbers.",
        task=sparse_gradients,
        goal=1e-4,
    ),
    "w5_wide_linear": Problem(
        title="A linear map",
        about=(
            "128 to 64 numbers, from batches of 16; the relative error of the "
            "coefficients."
        ),
        task=wide_linear,
        goal=1e-3,
    ),
    "w5_noisy": Problem(
        title="A noisy quadratic",
        about=(
            "Curvatures of 0.01 to 1, and a noise that the curvature does not scale. "
            "What is left at the end is noise, unless it is averaged away."
        ),
        task=noisy_quadratic,
    ),
}
