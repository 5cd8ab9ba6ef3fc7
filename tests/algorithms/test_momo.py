"""MoMo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Scalar, Tree, at, double, inner_product


def momo(
    p: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    value: Callable[[Any], Any],
    beta: Scalar = 0.9,
    lower_bound: float = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> Iterator[Tree]:
    """Schaipp et al., 2024, "MoMo: momentum models", algorithms 1 and 3."""
    p = {name: double(x) for name, x in p.items()}
    lb = lower_bound
    d, f, gamma = p, 0.0, 0.0
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        b = 0.0 if t == 1 else at(beta, t)
        f = b * f + (1 - b) * float(value(p))
        gamma = b * gamma + (1 - b) * inner_product(g, p)
        d = {name: b * d[name] + (1 - b) * g[name] for name in g}
        norm2, dot = inner_product(d, d), inner_product(d, p)
        lr, wd = at(learning_rate, t), at(weight_decay, t)
        level = (1 + lr * wd) * (f - gamma) + dot
        if adapt_lower_bound and level < (1 + lr * wd) * lb:
            lb = max(level / (2 * (1 + lr * wd)), lower_bound)
        tau = min(lr, max(level - (1 + lr * wd) * lb, 0.0) / norm2) if norm2 else 0.0
        if adapt_lower_bound:
            lb = max(f + dot - gamma - 0.5 * tau * norm2, lower_bound)
        p = {name: (p[name] - tau * d[name]) / (1 + lr * wd) for name in p}
        yield p


def momo_adam(
    p: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    value: Callable[[Any], Any],
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> Iterator[Tree]:
    """Schaipp et al., 2024, "MoMo: momentum models", algorithm 2."""
    p = {name: double(x) for name, x in p.items()}
    lb = lower_bound
    d = {name: np.zeros_like(x) for name, x in p.items()}
    v, f, gamma = d, 0.0, 0.0
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        beta1, beta2, e = at(b1, t), at(b2, t), at(eps, t)
        f = beta1 * f + (1 - beta1) * float(value(p))
        gamma = beta1 * gamma + (1 - beta1) * inner_product(g, p)
        d = {name: beta1 * d[name] + (1 - beta1) * g[name] for name in g}
        v = {name: beta2 * v[name] + (1 - beta2) * g[name] ** 2 for name in g}
        u = {name: d[name] / (e + np.sqrt(v[name] / (1 - beta2**t))) for name in g}
        norm2, dot, rho = inner_product(d, u), inner_product(d, p), 1 - beta1**t
        lr, wd = at(learning_rate, t), at(weight_decay, t)
        level = (1 + lr * wd) * (f - gamma) + dot
        if adapt_lower_bound and level < (1 + lr * wd) * rho * lb:
            lb = max(level / (2 * (1 + lr * wd) * rho), lower_bound)
        gap = max(level - (1 + lr * wd) * rho * lb, 0.0)
        tau = min(lr / rho, gap / norm2) if norm2 else 0.0
        if adapt_lower_bound:
            lb = max((f + dot - gamma - 0.5 * tau * norm2) / rho, lower_bound)
        p = {name: (p[name] - tau * u[name]) / (1 + lr * wd) for name in p}
        yield p


CASES = [
    Case("momo", looks_at_all_leaves=True, needs_value=True, complex_leaves=False),
    Case(
        "momo",
        {"weight_decay": 0.1, "adapt_lower_bound": True},
        looks_at_all_leaves=True,
        needs_value=True,
        complex_leaves=False,
    ),
    Case(
        "momo_adam",
        {"weight_decay": 0.1},
        looks_at_all_leaves=True,
        needs_value=True,
        complex_leaves=False,
    ),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    optax("momo", "momo(0.5)"),
    optax("momo-bound", f"momo({COSINE}, 0.5, 0.5, adapt_lower_bound=True)"),
    optax("momo-adam", "momo_adam()"),
    optax(
        "momo-adam-bound",
        f"momo_adam({COSINE}, 0.8, 0.95, 1e-6, 0.5, adapt_lower_bound=True)",
    ),
)


@pytest.mark.parametrize("twin", [momo, momo_adam])
def test_a_bound_that_is_too_high_falls_and_then_rises(twin: Any) -> None:
    def f(p: Any) -> Any:
        return 3.0 + sum((x**2).sum() for x in p.values())

    options: dict[str, Any] = {
        "learning_rate": 1.0,
        "weight_decay": 0.1,
        "lower_bound": 1.5,
        "adapt_lower_bound": True,
    }
    with jax.enable_x64(True):
        tx = getattr(jopt, twin.__name__)(**options)
        params = {"w": jnp.array([1.0, -2.0, 3.0])}
        state, bounds = tx.init(params), []
        # The twin takes each gradient when it is at the point of the step before.
        grads = (jax.grad(f)(params) for _ in range(30))
        for expected in twin(params, grads, value=f, **options):
            g, value = jax.grad(f)(params), f(params)
            params, state = jopt.step(tx, g, state, params, value=value)
            close = {"rtol": 1e-12, "atol": 1e-14}
            np.testing.assert_allclose(params["w"], expected["w"], **close)
            bounds.append(float(state[twin.__name__].lb))
    least = bounds.index(min(bounds))
    assert least > 0 and bounds[:least] == sorted(bounds[:least], reverse=True)
    assert bounds[-1] > bounds[least] + 0.1


def test_momo_finds_a_lower_bound_of_its_own() -> None:
    def f(p: jax.Array) -> jax.Array:
        return 3.0 + jnp.sum(p**2)

    tx = jopt.momo(1.0, adapt_lower_bound=True)
    params, state = jnp.array([1.0, -2.0]), tx.init(jnp.ones(2))
    for _ in range(300):
        value, g = jax.value_and_grad(f)(params)
        params, state = jopt.step(tx, g, state, params, value=value)
    np.testing.assert_allclose(params, 0.0, atol=1e-2)
    np.testing.assert_allclose(state["momo"].lb, 3.0, atol=1e-2)
