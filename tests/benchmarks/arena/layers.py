"""Layers of the problems. They broadcast by hand, as JAX's strictest settings ask."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def layer(key: jax.Array, inputs: int, outputs: int, gain: float = 1.0) -> Any:
    """A kernel whose outputs vary as its inputs do, times a gain, and a bias of 0."""
    kernel = jax.random.normal(key, (inputs, outputs)) * (gain / inputs**0.5)
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def dense(layer: Any, x: jax.Array) -> jax.Array:
    y = x @ layer["kernel"]
    return y + jnp.broadcast_to(layer["bias"], y.shape)


def mlp_init(sizes: Sequence[int], gain: float = 1.0) -> Callable[[jax.Array], Any]:
    """Return ``init(key)`` of an MLP; its last layer is the head."""

    def init(key):
        names = [f"hidden_{i}" for i in range(1, len(sizes) - 1)] + ["head"]
        keys = jax.random.split(key, len(names))
        shapes = itertools.pairwise(sizes)
        return {
            name: layer(k, *shape, gain)
            for name, k, shape in zip(names, keys, shapes, strict=True)
        }

    return init


def mlp(params: Any, x: jax.Array, activation: Callable[[Any], Any]) -> jax.Array:
    *hidden, last = sorted(params, key=lambda name: (name == "head", len(name), name))
    for name in hidden:
        x = activation(dense(params[name], x))
    return dense(params[last], x)


def normalized(x: jax.Array) -> jax.Array:
    """Vectors along the last axis, with a root mean square of 1."""
    square = jnp.mean(x * x, -1, keepdims=True)
    return x * jnp.broadcast_to(jax.lax.rsqrt(square + 1e-6), x.shape)


def split(arrays: Any, *sizes: int) -> list[Any]:
    """Shuffle examples, always in the same way, and split them."""
    n = len(arrays[0])
    order = np.random.default_rng(0).permutation(n)
    return [tuple(a[i] for a in arrays) for i in np.split(order, np.cumsum(sizes))]
