"""The problem of the laws: parameters, gradients, a loss; and how they are run."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt


STEPS = 20


def draw(
    seed: int = 0, steps: int = STEPS
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters and gradients: rows of size 1, 1e-4 and 1e-6, some zeros."""
    rng = np.random.default_rng(seed)
    shapes = {"bias": (4,), "kernel": (3, 4), "scalar": ()}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    scale = {
        "bias": np.array([1.0, 1e-4, 1e-6, 1.0]),
        "kernel": np.array([[1.0], [1e-4], [1e-6]]),
        "scalar": np.array(0.1),
    }
    grads = []
    for t in range(steps):
        g = {n: rng.normal(size=s) * scale[n] for n, s in shapes.items()}
        if t % 3 == 0:
            g["kernel"][:, 1] = 0.0
            g["bias"][2:] = 0.0
        grads.append(g)
    return params, grads


def as_dtype(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def small(dtype: Any = jnp.float32) -> tuple[Any, Any]:
    params, grads = draw(steps=2)
    return as_dtype(params, dtype), as_dtype(grads[1], dtype)


def types(tree: Any) -> Any:
    """Structure, shapes, dtypes and weak types, to compare."""
    return jax.tree.map(lambda x: (jnp.shape(x), str(x.dtype), x.weak_type), tree)


def stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def loss(params: Any) -> Any:
    """What an update is told as ``value``: positive, smooth, in float32 or wider."""
    wide = [
        p.astype(np.promote_types(p.dtype, np.float32)) for p in jax.tree.leaves(params)
    ]
    return 1.0 + 0.5 * sum((abs(p) ** 2).sum() for p in wide)


def update(tx: Any, g: Any, state: Any, params: Any = None, **extra: Any) -> Any:
    """``tx.update``, with the loss for what wants to know it."""
    return tx.update(g, state, params, **({"value": loss(params)} | extra))


def trajectory(tx: Any, params: Any, grads: list[Any]) -> Any:
    """The parameters after each step, stacked."""

    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = update(tx, g, state, params)
        params = jopt.apply_updates(params, updates)
        return (params, state), params

    def run(params: Any, grads: Any) -> Any:
        return jax.lax.scan(body, (params, tx.init(params)), grads)[1]

    return jax.jit(run)(params, stack(grads))


def updates_of(tx: Any, params: Any, grads: Any) -> Any:
    """The updates of each step at the same parameters, stacked as ``grads`` may be."""

    def body(state: Any, g: Any, params: Any) -> Any:
        updates, state = update(tx, g, state, params)
        return state, updates

    def run(params: Any, grads: Any) -> Any:
        step = functools.partial(body, params=params)
        return jax.lax.scan(step, tx.init(params), grads)[1]

    return jax.jit(run)(params, stack(grads) if isinstance(grads, list) else grads)
