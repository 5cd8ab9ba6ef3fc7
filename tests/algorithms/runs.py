"""Problems and runs that the tests of several optimizers share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt


def updates_of(tx: Any, grads: list[Any], params: Any) -> list[Any]:
    state, found = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        found.append(updates)
    return found


def updates_and_state(tx: Any, params: Any, grads: list[Any]) -> tuple[list[Any], Any]:
    """The updates of each step, and the last state."""
    state, found = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        found.append(updates)
    return found, state


def random_tree(
    steps: int = 6, shape: tuple[int, ...] = (5, 4)
) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(0)
    params = {
        n: jnp.asarray(rng.normal(size=s)) for n, s in (("b", (4,)), ("w", shape))
    }
    grads = [
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
        for _ in range(steps)
    ]
    return params, grads


def train(tx: Any, params: Any, grads: list[Any], **extra: Any) -> tuple[Any, Any]:
    """The parameters and the state after these gradients."""
    state = tx.init(params)
    for g in grads:
        params, state = jopt.step(tx, g, state, params, **extra)
    return params, state


def random_matrices(steps: int, seed: int = 0) -> tuple[jax.Array, list[jax.Array]]:
    rng = np.random.default_rng(seed)
    params = jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    return params, [jnp.asarray(rng.normal(size=(3, 2)), "f4") for _ in range(steps)]


def common_direction(shape: tuple[int, ...], steps: int = 12) -> tuple[Any, list[Any]]:
    """A parameter and gradients with a direction in common."""
    rng = np.random.default_rng(1)
    p, main = rng.normal(size=(2, *shape))
    return p, [main + 0.1 * rng.normal(size=shape) for _ in range(steps)]


def assert_follows(tx: Any, twin: Iterator[Any], p: Any, grads: list[Any]) -> None:
    """The parameters after each step are those of the twin."""
    with jax.enable_x64(True):
        params = jnp.asarray(p)
        state = tx.init(params)
        for g in grads:
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = jopt.apply_updates(params, updates)
            np.testing.assert_allclose(params, next(twin), 1e-9, 1e-12)


def floats(state: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(state) if x.dtype == jnp.float32)


def momentum(rate: float = 1.0) -> Any:
    return jopt.chain(jopt.trace(0.9), jopt.scale(-rate))


def on_a_path(tx: Any, dtype: Any, steps: int = 600) -> Any:
    """The state after parameters that go their own way, the same in every dtype."""
    rng = np.random.default_rng(0)
    start = jnp.asarray(rng.normal(size=24), jnp.bfloat16)
    noise = jnp.asarray(rng.normal(size=(steps, 24)), jnp.bfloat16)
    way = jnp.linspace(0.0, 1.0, steps).astype(jnp.bfloat16)

    def step(state: Any, given: Any) -> Any:
        share, g = given
        p = {"w": (start * (1 - share)).astype(dtype)}
        g = {"w": (g + start * (1 - share)).astype(dtype)}
        return tx.update(g, state, p)[1], None

    state = tx.init({"w": start.astype(dtype)})
    return jax.lax.scan(step, state, (way, noise))[0]


def scalars(state: Any) -> dict[str, Any]:
    found = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(n): x for n, x in found if x.size < 24}


def quadratic(p: Any) -> Any:
    w = p["w"].astype(jnp.float32)
    return 0.5 * jnp.sum(jnp.linspace(0.1, 1.0, 8) * (w - 3.0) ** 2)


def descend(tx: Any, f: Any, params: Any, steps: int) -> Any:
    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(f)(params), state, params)
        return (jopt.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]
