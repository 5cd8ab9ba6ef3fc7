"""Blocks along the last axis of an array: one number for each, and back.

The last block may be incomplete, and an axis shorter than a block is one block. On
meshes with explicit axes the results are sharded as the array is, except that a last
axis whose shards are not whole blocks is gathered.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec


class Tile(NamedTuple):
    """The part of an array with which a computation takes place.

    Attributes:
      start: The number of rows before it, if it is some rows of a matrix; with
        ``strides``, that of the elements before the first one. Both are int32, and
        begin again beyond 2**32 elements. None: all of the array is at hand.
      strides: How far the next element of each axis is in the whole array.
      in_pallas: Whether it is a Pallas kernel, which has no reshape.
      is_trial: Whether nothing is computed: the operations are looked at, and those
        that draw random bits are of no interest.
    """

    start: Any = None
    strides: tuple[int, ...] | None = None
    in_pallas: bool = False
    is_trial: bool = False


_ALL = Tile()
_TILE = contextvars.ContextVar("tile", default=_ALL)


@contextlib.contextmanager
def on_tile(tile: Tile) -> Iterator[None]:
    """Compute with a part of an array."""
    before = _TILE.set(tile)
    try:
        yield
    finally:
        _TILE.reset(before)


def current_tile() -> Tile:
    """The part of an array that is at hand."""
    return _TILE.get()


def block_count(length: int, size: int) -> int:
    """The number of blocks of this size along an axis of this length.

    >>> block_count(1000, 256), block_count(100, 256)
    (4, 1)
    """
    return -(-length // size)


def largest(x: jax.Array, size: int) -> jax.Array:
    """The largest magnitude in each block, as float32; NaN if there is a NaN in it.

    >>> largest(-jnp.arange(5.0), 2)
    Array([1., 3., 4.], dtype=float32)
    """
    # Magnitudes are in the order of their bits, and NaN is above infinity. XLA's
    # maximum of floats loses a NaN on a CPU.
    x = lax.bitcast_convert_type(jnp.abs(x.astype(jnp.float32)), jnp.int32)
    maximum = _of_slices if _TILE.get().in_pallas else _maximum
    return lax.bitcast_convert_type(maximum(x, size), jnp.float32)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(i, min(length, i + size)) for i in range(0, length, size)]


def _of_slices(x: jax.Array, size: int) -> jax.Array:
    """The largest number of each block, without an axis of blocks."""
    slices = _slices(x.shape[1], size)
    places = lax.broadcasted_iota(jnp.int32, (x.shape[0], len(slices)), 1)
    result = jnp.zeros(places.shape, x.dtype)
    for i, one in enumerate(slices):
        most = jnp.max(x[:, one], 1, keepdims=True)
        result = jnp.where(places == i, most, result)
    return result


def _maximum(x: jax.Array, size: int) -> jax.Array:
    if x.shape[-1] <= size:
        return jnp.max(x, -1, keepdims=True)
    x = _gathered(x, size)
    *others, length = x.shape
    if rest := -length % size:
        # Numbers that are there: padding with zeros could be larger than a block.
        last = lax.slice_in_dim(x, length - 1, length, axis=-1)
        padding = jnp.broadcast_to(last, (*others, rest))
        x = jnp.concatenate([x, padding], axis=-1)
    return jnp.max(x.reshape(*others, -1, size), -1)


def spread(numbers: jax.Array, like: jax.Array, size: int) -> jax.Array:
    """An array like another, with the number of its block at each element.

    >>> spread(jnp.array([1.0, 2.0]), jnp.zeros(3), 2)
    Array([1., 1., 2.], dtype=float32)
    """
    *others, length = like.shape
    if _TILE.get().in_pallas:
        parts = [
            jnp.broadcast_to(numbers[:, i : i + 1], (*others, one.stop - one.start))
            for i, one in enumerate(_slices(length, size))
        ]
        return jnp.concatenate(parts, 1)
    if length <= size:
        result = jnp.broadcast_to(numbers, like.shape)
    else:
        repeated = jnp.broadcast_to(numbers[..., None], (*numbers.shape, size))
        result = repeated.reshape(*others, -1)
        result = lax.slice_in_dim(result, 0, length, axis=-1)
    spec = _explicit_spec(like)
    return result if spec is None else jax.sharding.reshard(result, spec)


def _explicit_spec(x: jax.Array) -> NamedSharding | None:
    sharding: Any = jax.typeof(x).sharding
    if not sharding.mesh.explicit_axes:
        return None
    return sharding


def _gathered(x: jax.Array, size: int) -> jax.Array:
    """The array, with whole blocks on each device of a mesh with explicit axes."""
    sharding = _explicit_spec(x)
    if sharding is None or sharding.spec[-1] is None:
        return x
    axes = sharding.spec[-1]
    parts = 1
    for axis in (axes,) if isinstance(axes, str) else axes:
        parts *= sharding.mesh.shape[axis]
    if x.shape[-1] % (parts * size) == 0:
        return x
    spec = PartitionSpec(*sharding.spec[:-1], None)
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))
