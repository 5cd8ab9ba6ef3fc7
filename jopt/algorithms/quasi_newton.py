"""The inverse Hessian that past steps and changes of the gradient imply: L-BFGS.

    s_i = p_{i+1} - p_i,   y_i = g_{i+1} - g_i,   rho_i = 1 / <s_i, y_i>
    H   = (I - rho s y^T) … H_0 … (I - rho y s^T) + …,   H_0 = scale I

The last ``m`` pairs are kept, and ``H g`` is computed without ``H``.

Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt import tree
from jopt.core.leafwise import zeros


class Pairs(NamedTuple):
    """The last pairs, in circular buffers. All leaves have the compute dtype."""

    count: jax.Array  # int32 scalar, pairs stored so far
    steps: Any  # differences of parameters, (m, *shape) per leaf
    changes: Any  # differences of gradients, (m, *shape) per leaf
    weights: jax.Array  # (m,), 1 / <s, y>; 0 where no pair is stored


def no_pairs(memory_size: int, params: Any) -> Pairs:
    """Buffers for pairs of trees like ``params``.

    Args:
      memory_size: Number of pairs to keep.
      params: A tree of arrays; its leaves may be None.

    >>> no_pairs(5, {"w": jnp.ones(3), "b": None}).steps["w"].shape
    (5, 3)
    """

    slot = zeros()  # sharded as the parameter is

    def buffer(p):
        row = slot.init(p)
        return jnp.broadcast_to(row, (memory_size, *row.shape))

    return Pairs(
        count=jnp.zeros((), jnp.int32),
        steps=jax.tree.map(buffer, params),
        changes=jax.tree.map(buffer, params),
        weights=jnp.zeros(memory_size, _width(params)),
    )


def remember(
    pairs: Pairs, step: Any, change: Any, *, unless: Any = False
) -> tuple[Pairs, jax.Array]:
    """Store a pair in the place of the oldest one.

    A pair without positive curvature ``<s, y>``, beyond rounding errors, would make the
    matrix indefinite. It is left out, and the matrix stays as it is.

    Args:
      pairs: The pairs so far.
      step: The difference of the parameters, ``s``.
      change: The difference of the gradients, ``y``.
      unless: Leaves the pair out in any case.

    Returns:
      The pairs, and whether this one was stored.

    >>> pairs = no_pairs(5, jnp.ones(2))
    >>> pairs, stored = remember(pairs, jnp.ones(2), jnp.array([1.0, 2.0]))
    >>> bool(stored), float(pairs.weights[0])
    (True, 0.3333333432674408)
    """
    curvature, limits = dot(step, change), jnp.finfo(pairs.weights.dtype)
    bound = jnp.sqrt(dot(step, step)) * jnp.sqrt(dot(change, change))
    # A product of subnormal size has no reciprocal. False for NaN.
    positive = (curvature > limits.eps * bound) & (curvature >= limits.tiny)
    stored = positive & ~jnp.asarray(unless) & jnp.isfinite(bound)
    place = pairs.count % pairs.weights.shape[0]

    def put(rows, row):
        old = lax.dynamic_index_in_dim(rows, place, keepdims=False)
        row = jnp.where(stored, row.astype(rows.dtype), old)
        return lax.dynamic_update_index_in_dim(rows, row, place, 0)

    weight = 1 / jnp.where(stored, curvature, 1)
    pairs = Pairs(
        count=pairs.count + stored.astype(jnp.int32),
        steps=jax.tree.map(put, pairs.steps, step),
        changes=jax.tree.map(put, pairs.changes, change),
        weights=put(pairs.weights, weight),
    )
    return pairs, stored


def inverse_curvature(step: Any, change: Any) -> jax.Array:
    """The scale of ``H_0`` that fits a pair, ``<s, y> / <y, y>``.

    >>> float(inverse_curvature(jnp.ones(2), jnp.full(2, 4.0)))
    0.25
    """
    square = dot(change, change)
    return dot(step, change) / jnp.where(square > 0, square, 1)


def inverse_hessian_times(pairs: Pairs, scale: Any, vector: Any) -> Any:
    """Return ``H g``, by the two loops over the pairs.

    Args:
      pairs: The pairs.
      scale: The scale of ``H_0``.
      vector: ``g``, a tree of arrays.

    Returns:
      A tree like ``g``, in the compute dtype.

    >>> pairs, _ = remember(no_pairs(5, 0.0), jnp.float32(1.0), jnp.float32(4.0))
    >>> float(inverse_hessian_times(pairs, 1.0, jnp.float32(8.0)))
    2.0
    """
    vector, treedef = jax.tree.flatten(vector)
    steps = treedef.flatten_up_to(pairs.steps)
    changes = treedef.flatten_up_to(pairs.changes)
    vector = [g.astype(s.dtype) for g, s in zip(vector, steps, strict=True)]
    size = pairs.weights.shape[0]
    ages = jnp.arange(size, dtype=jnp.int32)
    newest_first = (pairs.count - 1 - ages) % size

    def row(rows, i):
        return [lax.dynamic_index_in_dim(x, i, keepdims=False) for x in rows]

    def back(q, i):
        part = pairs.weights[i] * dot(row(steps, i), q)
        return _plus(q, -part, row(changes, i)), part

    def forth(r, i_and_part):
        i, part = i_and_part
        other = pairs.weights[i] * dot(row(changes, i), r)
        return _plus(r, part - other, row(steps, i)), None

    vector, parts = lax.scan(back, vector, newest_first)
    vector = [jnp.asarray(scale, x.dtype) * x for x in vector]
    vector, _ = lax.scan(forth, vector, (newest_first, parts), reverse=True)
    return treedef.unflatten(vector)


def dot(x: Any, y: Any) -> jax.Array:
    """The real inner product of two trees, as of their real and imaginary parts.

    >>> float(dot(jnp.array([1 + 2j]), jnp.array([3 + 4j])))
    11.0
    """
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    width = _width(x)
    return sum((_dot(a, b).astype(width) for a, b in pairs), jnp.zeros((), width))


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    dtype = tree.compute_dtype(np.promote_types(jnp.result_type(x), jnp.result_type(y)))
    x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    if jnp.iscomplexobj(x):
        return jnp.sum(x.real * y.real) + jnp.sum(x.imag * y.imag)
    return jnp.sum(x * y)


def _width(whole: Any) -> Any:
    """The real dtype of products of a tree."""
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(whole)]
    return jnp.finfo(np.result_type(jnp.float32, *dtypes)).dtype


def _plus(x: list[jax.Array], factor: jax.Array, y: list[jax.Array]) -> list[jax.Array]:
    return [a + factor.astype(a.dtype) * b for a, b in zip(x, y, strict=True)]
