"""PyTree arithmetic that algorithms share: paths, norms, safe counts."""

from __future__ import annotations

import collections
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as text: ``dense/kernel``, alike for every container.

    nnx wraps a parameter in a variable, which adds a last ``value`` to the path at
    ``init`` but not at ``update``; it is dropped, so that one name serves both.

    >>> import jax
    >>> tree = {"dense": {"kernel": 1.0}}
    >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    ['dense/kernel']
    """
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_with_names(tree: Any, none: bool = False) -> list[tuple[str, Any]]:
    """``(path, leaf)`` of every leaf; with ``none=True`` also of the Nones."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=(lambda x: x is None) if none else None
    )
    return [(path_name(path), leaf) for path, leaf in found]


def compute_dtype(dtype: Any) -> Any:
    """The dtype that a leaf is computed in: float32, or wider if the leaf is.

    >>> compute_dtype(jnp.bfloat16), compute_dtype(jnp.complex64)
    (dtype('float32'), dtype('complex64'))
    """
    return np.promote_types(dtype, jnp.float32)


def safe_increment(count: jax.Array) -> jax.Array:
    """``count + 1``, staying at the largest integer instead of overflowing.

    >>> int(safe_increment(jnp.int32(2**31 - 1)))
    2147483647
    """
    largest = jnp.iinfo(count.dtype).max
    return jnp.where(count < largest, count + jnp.ones_like(count), count)


def abs_sq(x: jax.Array) -> jax.Array:
    """``|x|^2``, real also for complex ``x``.

    >>> float(abs_sq(jnp.complex64(3 + 4j)))
    25.0
    """
    if jnp.iscomplexobj(x):
        return jnp.real(x) ** 2 + jnp.imag(x) ** 2
    return x * x


def scalar_dtype() -> Any:
    """The dtype of scalars: float32, or float64 under x64; never the parameters'."""
    return jnp.result_type(float)


def scalar(value: Any) -> jax.Array:
    """``value`` as a strongly typed scalar."""
    return jnp.asarray(value, scalar_dtype())


@jax.jit
def norm(tree: Any) -> jax.Array:
    """The L2 norm of all leaves together.

    Computed in float32 (float64 if a leaf is) whatever the leaves' dtype. Squares of
    numbers above 1e19 or below 1e-19 do not fit into float32: where the plain sum of
    squares leaves its safe range, and only there, the tree is read again and scaled.

    Args:
      tree: Arrays; Nones count as absent.

    Returns:
      A scalar.

    >>> float(norm({"a": jnp.full(4, 300.0, jnp.float16), "b": None}))
    600.0
    >>> float(norm(jnp.full(4, 1e30)) / 2e30)
    1.0
    """
    leaves = [x for x in map(jnp.asarray, jax.tree.leaves(tree)) if x.size]
    if not leaves:
        return jnp.zeros((), scalar_dtype())
    wide = max(
        (jnp.finfo(compute_dtype(x.dtype)) for x in leaves), key=lambda f: f.bits
    )
    groups = _equal_groups(leaves)
    squares = jnp.zeros((), wide.dtype)
    for group in groups:
        squares = _add_squares(squares, group)
    # Below this bound, squares that vanished could matter.
    lowest = sum(x.size for x in leaves) * float(wide.tiny) * 1e7

    def scaled() -> jax.Array:
        norms = jnp.concatenate([_norms(group, wide.dtype) for group in groups])
        return norm_along(norms, None)[0]

    safe = (squares > lowest) & (squares < jnp.inf)
    return jax.lax.cond(safe, lambda: jnp.sqrt(squares), scaled).astype(scalar_dtype())


def _equal_groups(leaves: list[jax.Array], most: int = 16) -> list[list[jax.Array]]:
    """Leaves of one shape and dtype together, a few at a time.

    What is jitted for a group is traced once for all equal groups, so a tree of many
    leaves takes few calls.
    """
    alike = collections.defaultdict(list)
    for x in leaves:
        alike[x.shape, x.dtype].append(x)
    return [xs[i : i + most] for xs in alike.values() for i in range(0, len(xs), most)]


@jax.jit
def _add_squares(total: jax.Array, group: list[jax.Array]) -> jax.Array:
    for x in group:
        wide = x.astype(np.promote_types(x.dtype, total.dtype))
        total = total + jnp.sum(abs_sq(wide))
    return total


@functools.partial(jax.jit, static_argnums=1)
def _norms(group: list[jax.Array], dtype: Any) -> jax.Array:
    wide = [x.astype(np.promote_types(x.dtype, dtype)) for x in group]
    return jnp.concatenate([norm_along(x, None).reshape(1) for x in wide])


def bias_correction(decay: float | jax.Array, t: jax.Array) -> jax.Array:
    """``1 - decay**t``, the share of an average that its first ``t`` steps have filled.

    In float32 ``0.999**t`` is so close to 1 that the difference keeps three digits
    only; ``-expm1(t log decay)`` keeps all of them.

    Args:
      decay: In [0, 1).
      t: The number of steps, from 1.

    >>> abs(float(bias_correction(0.999, jnp.float32(1))) / 0.001 - 1) < 1e-6
    True
    """
    if isinstance(decay, float):
        log = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(decay)
    return -jnp.expm1(t * log)


def norm_along(x: jax.Array, axis: int | tuple[int, ...] | None) -> jax.Array:
    """The L2 norms of one array along axes, which are kept; any magnitude is exact.

    >>> norm_along(jnp.array([[3e30, 4e30]]), axis=1) / 1e30
    Array([[5.]], dtype=float32)
    """
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0)
    # Neither the quotients nor 1 / divisor may leave the normal range.
    tiny = jnp.finfo(largest.dtype).tiny
    divisor = jax.lax.stop_gradient(jnp.clip(largest, tiny, 1 / tiny))
    squares = jnp.sum(abs_sq(x / divisor.astype(x.dtype)), axis=axis, keepdims=True)
    return divisor * jnp.sqrt(squares)
