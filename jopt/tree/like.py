"""New trees in the shape of others."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jopt.tree.dtypes import wide
from jopt.tree.paths import map_leaves


def full_like(tree: Any, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """A tree filled with a number.

    Args:
      tree: Arrays, or what has a shape and a dtype; None stays None.
      fill_value: The number.
      dtype: Of the new leaves; None for each the dtype of its leaf.

    Returns:
      A tree like ``tree``, sharded like it, also under jit.

    >>> full_like({"a": jnp.zeros(2), "b": None}, 7.0)
    {'a': Array([7., 7.], dtype=float32), 'b': None}
    """

    def full(x):
        wanted = jnp.result_type(_dtype(x) if dtype is None else dtype)
        if isinstance(x, jax.ShapeDtypeStruct):
            return jnp.full(x.shape, fill_value, wanted, device=x.sharding)
        return _filled(jnp.asarray(x), fill_value, wanted)

    return map_leaves(full, tree=tree)


def _dtype(x: Any) -> Any:
    return getattr(x, "dtype", None) or jnp.result_type(x)


@functools.partial(jax.jit, static_argnums=2)
def _filled(x: jax.Array, fill_value: Any, dtype: Any) -> jax.Array:
    return spread_like(jnp.full_like(x, fill_value, dtype=dtype), x)


def spread_like(x: jax.Array, other: jax.Array) -> jax.Array:
    """``x``, spread over devices as ``other`` is, also under jit.

    A choice that is never made, which the compiler cannot know, ties one to the other
    where shardings are decided.

    Args:
      x: An array.
      other: An array of the same shape.

    >>> spread_like(jnp.zeros(2), jnp.array([1, 2]))
    Array([0., 0.], dtype=float32)
    """
    if jnp.iscomplexobj(other) and not jnp.iscomplexobj(x):
        other = jnp.real(other)
    never = jax.lax.optimization_barrier(np.False_)
    return jax.lax.select(never, other.astype(x.dtype), x)


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """A tree of zeros.

    Args:
      tree: Arrays, or what has a shape and a dtype; None stays None.
      dtype: Of the new leaves; None for each the dtype of its leaf.

    Returns:
      A tree like ``tree``, sharded like it, also under jit.

    >>> zeros_like({"a": jnp.ones(2)}, jnp.bfloat16)
    {'a': Array([0, 0], dtype=bfloat16)}
    """
    return full_like(tree, 0, dtype)


def ones_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """A tree of ones.

    Args:
      tree: Arrays, or what has a shape and a dtype; None stays None.
      dtype: Of the new leaves; None for each the dtype of its leaf.

    Returns:
      A tree like ``tree``, sharded like it, also under jit.

    >>> ones_like({"a": jnp.zeros(2)})
    {'a': Array([1., 1.], dtype=float32)}
    """
    return full_like(tree, 1, dtype)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """Every leaf repeated along new leading axes.

    Args:
      tree: Arrays; None stays None.
      shape: The lengths of the new axes.

    Returns:
      A tree like ``tree``.

    >>> batch_shape({"a": jnp.zeros(2)}, (3,))["a"].shape
    (3, 2)
    """
    return map_leaves(lambda x: jnp.broadcast_to(x, (*shape, *np.shape(x))), tree=tree)


def split_key_like(rng_key: jax.Array, target_tree: Any) -> Any:
    """A key for every leaf.

    Args:
      rng_key: A key of ``jax.random``.
      target_tree: Any tree; None stays None.

    Returns:
      A tree of keys like ``target_tree``.

    >>> split_key_like(jax.random.key(0), {"a": 1.0})["a"].shape
    ()
    """
    treedef = jax.tree.structure(target_tree)
    return treedef.unflatten(jax.random.split(rng_key, treedef.num_leaves))


def random_like(
    rng_key: jax.Array,
    target_tree: Any,
    sampler: Callable[..., Any] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Any:
    """A tree of random numbers.

    Numbers for leaves narrower than float32 are drawn in float32 and rounded: in
    bfloat16 itself there are 128 different uniform ones between 0.5 and 1.

    Args:
      rng_key: A key of ``jax.random``.
      target_tree: Arrays, or what has a shape and a dtype; None stays None.
      sampler: Called as ``sampler(key, shape, dtype)``, with ``out_sharding`` too if it
        takes that.
      dtype: Of the new leaves; None for each the dtype of its leaf.

    Returns:
      A tree like ``target_tree``.

    >>> tree = random_like(jax.random.key(0), {"a": jnp.zeros((2, 3), jnp.bfloat16)})
    >>> tree["a"].shape, tree["a"].dtype
    ((2, 3), dtype(bfloat16))
    """
    sharded = "out_sharding" in inspect.signature(sampler).parameters

    def draw(x, key):
        wanted = jnp.result_type(_dtype(x) if dtype is None else dtype)
        options = {"out_sharding": jax.typeof(x).sharding} if sharded else {}
        return sampler(key, np.shape(x), wide(wanted), **options).astype(wanted)

    keys = split_key_like(rng_key, target_tree)
    return map_leaves(draw, same_shapes=False, target_tree=target_tree, keys=keys)


def unwrap_random_key_data(input_tree: Any) -> Any:
    """Keys of ``jax.random`` as the numbers they consist of; the rest as it is.

    Args:
      input_tree: Any tree; None stays None.

    Returns:
      A tree like ``input_tree``, of arrays that can be compared and saved.

    >>> unwrap_random_key_data({"key": jax.random.key(3), "a": 1.0})
    {'a': 1.0, 'key': Array([0, 3], dtype=uint32)}
    """

    def unwrap(x):
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(
            x.dtype, jax.dtypes.prng_key
        )
        return jax.random.key_data(x) if is_key else x

    return map_leaves(unwrap, input_tree=input_tree)
