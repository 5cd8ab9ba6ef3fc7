"""The problem of the laws: parameters, gradients, a loss; and how they are run."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.apply import apply_updates


STEPS = 20
SHAPES = {"bias": (4,), "kernel": (3, 4), "scalar": ()}


def draw(
    like: Any = None, *, seed: int = 0, steps: int = STEPS
) -> tuple[Any, list[Any]]:
    """Parameters and gradients: rows of size 1, 1e-4 and 1e-6, some zeros.

    Args:
      like: Parameters to draw gradients for; None draws a dict of three leaves.
      seed: Of the random numbers.
      steps: How many gradients.

    Returns:
      The parameters and a list of gradients, in float64.
    """
    rng = np.random.default_rng(seed)
    if like is not None:
        return like, [_like(like, rng, t) for t in range(steps)]
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    scale = {
        "bias": np.array([1.0, 1e-4, 1e-6, 1.0]),
        "kernel": np.array([[1.0], [1e-4], [1e-6]]),
        "scalar": np.array(0.1),
    }
    grads = []
    for t in range(steps):
        g = {n: rng.normal(size=s) * scale[n] for n, s in SHAPES.items()}
        if t % 3 == 0:
            g["kernel"][:, 1] = 0.0
            g["bias"][2:] = 0.0
        grads.append(g)
    return params, grads


def _like(params: Any, rng: np.random.Generator, t: int) -> Any:
    """Gradients like any parameters, of sizes 1, 1e-4 and 1e-6 by their first axis."""

    def one(p):
        g = np.asarray(rng.normal(size=p.shape))
        if g.ndim:
            sizes = np.array([1.0, 1e-4, 1e-6])[np.arange(len(g)) % 3]
            g = g * sizes.reshape(-1, *[1] * (g.ndim - 1))
            if t % 3 == 0:
                g[..., 1::4] = 0.0
        return g

    return jax.tree.map(one, params)


def as_dtype(tree: Any, dtype: Any) -> Any:
    """The tree with arrays of this dtype."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def small(dtype: Any = jnp.float32, like: Any = None) -> tuple[Any, Any]:
    """Parameters and one gradient, in a dtype."""
    params, grads = draw(like, steps=2)
    return as_dtype(params, dtype), as_dtype(grads[1], dtype)


def stack(trees: list[Any]) -> Any:
    """One tree of several, with a first axis for them."""
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


def step(tx: Any, g: Any, state: Any, params: Any) -> Any:
    """The new parameters and state."""
    updates, state = update(tx, g, state, params)
    return apply_updates(params, updates), state


def trajectory(tx: Any, params: Any, grads: Any) -> Any:
    """The parameters after each step, stacked as ``grads`` may be."""

    def body(carry, g):
        params, state = carry
        params, state = step(tx, g, state, params)
        return (params, state), params

    def run(params, grads):
        return jax.lax.scan(body, (params, tx.init(params)), grads)[1]

    return jax.jit(run)(params, stack(grads) if isinstance(grads, list) else grads)


def updates_of(tx: Any, params: Any, grads: Any) -> Any:
    """The updates of each step at the same parameters, stacked as ``grads`` may be."""

    def body(state, g, params):
        updates, state = update(tx, g, state, params)
        return state, updates

    def run(params, grads):
        one = functools.partial(body, params=params)
        return jax.lax.scan(one, tx.init(params), grads)[1]

    return jax.jit(run)(params, stack(grads) if isinstance(grads, list) else grads)
