"""New trees with the structure and shapes of others."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jopt.tree.dtypes import wide
from jopt.tree.paths import map_leaves


def full_like(tree: Any, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """Return a tree filled with a number.

    Args:
      tree: Arrays, or objects with a shape and a dtype; None stays None.
      fill_value: The number.
      dtype: Dtype of the new leaves; None keeps the dtype of each leaf.

    Returns:
      A tree like ``tree``, with the same sharding, also under jit.

    >>> full_like({"a": jnp.zeros(2), "b": None}, 7.0)
    {'a': Array([7., 7.], dtype=float32), 'b': None}
    """

    def fill(x):
        new_dtype = jnp.result_type(_dtype(x) if dtype is None else dtype)
        if isinstance(x, jax.ShapeDtypeStruct):
            return jnp.full(x.shape, fill_value, new_dtype, device=x.sharding)
        return _fill(jnp.asarray(x), fill_value, new_dtype)

    return map_leaves(fill, tree=tree)


def _dtype(x: Any) -> Any:
    return getattr(x, "dtype", None) or jnp.result_type(x)


@functools.partial(jax.jit, static_argnums=2)
def _fill(x: jax.Array, fill_value: Any, dtype: Any) -> jax.Array:
    return spread_like(jnp.full_like(x, fill_value, dtype=dtype), x)


def spread_like(x: jax.Array, other: jax.Array) -> jax.Array:
    """Return ``x``, sharded like ``other``, also under jit.

    A selection that never happens, which the compiler cannot know, ties the sharding
    of ``x`` to that of ``other``.

    Args:
      x: An array.
      other: An array of the same shape.

    >>> spread_like(jnp.zeros(2), jnp.array([1, 2]))
    Array([0., 0.], dtype=float32)
    """
    if jnp.iscomplexobj(other) and not jnp.iscomplexobj(x):
        other = jnp.real(other)
    # Without the barrier the compiler would fold the constant and drop the selection.
    never = jax.lax.optimization_barrier(np.False_)
    return jax.lax.select(never, other.astype(x.dtype), x)


def applied(f: Callable[[Any], Any], x: Any) -> Any:
    """Return ``f(x)``, or the shape of it where ``x`` is only a shape itself.

    Args:
      f: A function of an array.
      x: An array, or a ``jax.ShapeDtypeStruct``.

    >>> applied(jnp.sum, jax.ShapeDtypeStruct((2,), jnp.float32)).shape
    ()
    """
    return jax.eval_shape(f, x) if isinstance(x, jax.ShapeDtypeStruct) else f(x)


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Return a tree of zeros.

    Args:
      tree: Arrays, or objects with a shape and a dtype; None stays None.
      dtype: Dtype of the new leaves; None keeps the dtype of each leaf.

    Returns:
      A tree like ``tree``, with the same sharding, also under jit.

    >>> zeros_like({"a": jnp.ones(2)}, jnp.bfloat16)
    {'a': Array([0, 0], dtype=bfloat16)}
    """
    return full_like(tree, 0, dtype)


def zeros_beside(x: jax.Array) -> jax.Array:
    """Return zeros in the memory of an array; ``jnp.zeros_like`` fails for the host's.

    >>> zeros_beside(jnp.ones(2))
    Array([0., 0.], dtype=float32)
    """
    place: Any = jax.typeof(x).memory_space
    usual = {jax.memory.Space.Device}
    if isinstance(x, jax.Array) and not isinstance(x, Tracer):
        usual = {device.default_memory().kind for device in x.sharding.device_set}
        place = x.sharding
    if getattr(place, "memory_kind", place) in usual:
        return jnp.zeros_like(x)
    return jax.device_put(jnp.zeros(x.shape, x.dtype), place)


def ones_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Return a tree of ones.

    Args:
      tree: Arrays, or objects with a shape and a dtype; None stays None.
      dtype: Dtype of the new leaves; None keeps the dtype of each leaf.

    Returns:
      A tree like ``tree``, with the same sharding, also under jit.

    >>> ones_like({"a": jnp.zeros(2)})
    {'a': Array([1., 1.], dtype=float32)}
    """
    return full_like(tree, 1, dtype)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """Repeat every leaf along new leading axes.

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
    """Return a tree with a random key for every leaf.

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
    """Return a tree of random numbers.

    Numbers for leaves narrower than float32 are drawn in float32 and rounded: drawn in
    bfloat16, uniform numbers between 0.5 and 1 have only 128 different values.

    Args:
      rng_key: A key of ``jax.random``.
      target_tree: Arrays, or objects with a shape and a dtype; None stays None.
      sampler: Called as ``sampler(key, shape, dtype)``, and with ``out_sharding`` if it
        has that parameter.
      dtype: Dtype of the new leaves; None keeps the dtype of each leaf.

    Returns:
      A tree like ``target_tree``.

    >>> tree = random_like(jax.random.key(0), {"a": jnp.zeros((2, 3), jnp.bfloat16)})
    >>> tree["a"].shape, tree["a"].dtype
    ((2, 3), dtype(bfloat16))
    """

    def draw(x, key):
        new_dtype = jnp.result_type(_dtype(x) if dtype is None else dtype)
        return drawn_like(key, x, sampler, wide(new_dtype)).astype(new_dtype)

    keys = split_key_like(rng_key, target_tree)
    return map_leaves(draw, same_shapes=False, target_tree=target_tree, keys=keys)


def drawn_like(
    key: jax.Array, x: Any, sampler: Callable[..., Any], dtype: DTypeLike | None = None
) -> jax.Array:
    """Return random numbers with the shape and sharding of one array.

    Args:
      key: A key of ``jax.random``.
      x: An array, or an object with a shape and a dtype.
      sampler: See `random_like`.
      dtype: Dtype to draw in; None means that of ``x``.

    >>> drawn_like(jax.random.key(0), jnp.zeros((2, 3)), jax.random.normal).shape
    (2, 3)
    """
    sharded = "out_sharding" in inspect.signature(sampler).parameters
    options = {"out_sharding": jax.typeof(x).sharding} if sharded else {}
    dtype = jnp.result_type(_dtype(x) if dtype is None else dtype)
    return sampler(key, np.shape(x), dtype, **options)


def unwrap_random_key_data(input_tree: Any) -> Any:
    """Replace keys of ``jax.random`` by their data; keep all other leaves.

    Args:
      input_tree: Any tree; None stays None.

    Returns:
      A tree like ``input_tree``, whose arrays can be compared and saved.

    >>> unwrap_random_key_data({"key": jax.random.key(3), "a": 1.0})
    {'a': 1.0, 'key': Array([0, 3], dtype=uint32)}
    """

    def unwrap(x):
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(
            x.dtype, jax.dtypes.prng_key
        )
        return jax.random.key_data(x) if is_key else x

    return map_leaves(unwrap, input_tree=input_tree)
