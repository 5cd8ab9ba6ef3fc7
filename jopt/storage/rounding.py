"""Stochastic rounding: up or down at random, so that the mean of the result is exact.

A moving average with decay 0.999 changes by less than half of bfloat16's spacing and
stands still when it is rounded to nearest. Rounded at random it stays right on average.

The random bits are a hash of an element's place, not of a key: a compiler fuses the
hash into the loop that rounds, so it moves no memory, and an element gets the same bits
on one device and on many.

Gupta et al., "Deep Learning with Limited Numerical Precision", 2015.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt.storage.blocks import Tile, current_tile


# Odd numbers far from each other, so that steps and streams start at distant places.
_OF_STEPS, _OF_STREAMS = 0x9E3779B9, 0x85EBCA6B


def random_bits(
    x: jax.Array,
    step: jax.Array | int,
    stream: jax.Array | int = 0,
    rows: jax.Array | None = None,
) -> jax.Array:
    """Return 32 random bits for every element of an array.

    They depend on the element's index in the whole array, the step and the stream, and
    not on how the array is sharded.

    Args:
      x: The array; only its shape and sharding count.
      step: An integer. Each step has other bits.
      stream: A number for the array: two arrays of one shape need two streams.
      rows: For some rows of an array, their places in it.

    Returns:
      An array like ``x`` of uint32.

    >>> x = jnp.zeros((2, 3))
    >>> bool((random_bits(x, 1) == random_bits(x, 2)).any())
    False
    """
    tile = current_tile()
    if tile.is_trial:
        return jnp.zeros(x.shape, jnp.uint32)
    stream_start = jnp.asarray(stream).astype(jnp.uint32) * jnp.uint32(_OF_STREAMS)
    start = jnp.asarray(step).astype(jnp.uint32) * jnp.uint32(_OF_STEPS)
    start = _mixed(start + stream_start)
    if tile.start is not None:
        return _mixed(_places(x.shape, tile).astype(jnp.uint32) + start)
    sharding = jax.typeof(x).sharding if _explicit(x) else None
    index, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        if axis == 0 and rows is not None:
            places = lax.broadcast_in_dim(
                rows.astype(jnp.uint32), x.shape, (0,), out_sharding=sharding
            )
        else:
            places = lax.broadcasted_iota(
                jnp.uint32, x.shape, axis, out_sharding=sharding
            )
        # Beyond 2**32 elements indices begin again, which is far enough apart.
        index = index + places * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return _mixed(index + start)


def _places(shape: tuple[int, ...], tile: Tile) -> jax.Array:
    """The places of a part's elements in the whole array, as int32, which TPUs have."""
    strides, index = tile.strides, tile.start
    if strides is None:
        strides, index = (shape[1], 1), index * wrapped(shape[1])
    for axis, stride in enumerate(strides):
        places = lax.broadcasted_iota(jnp.int32, shape, axis)
        index = index + (places if stride == 1 else places * wrapped(stride))
    return index


def wrapped(number: int) -> np.int32:
    """A whole number in 32 bits, beyond which it begins again.

    >>> int(wrapped(2**32 - 1))
    -1
    """
    return np.uint32(number % 2**32).astype(np.int32)


def _explicit(x: jax.Array) -> bool:
    mesh = jax.typeof(x).sharding.mesh
    return not mesh.empty and not mesh.are_all_axes_auto


def _mixed(x: jax.Array) -> jax.Array:
    """A bijection in which every bit of the result depends on every bit of ``x``.

    The constants are those that Wellons found by search ("hash-prospector", 2018).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def stochastic_bfloat16(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Round float32 to bfloat16: up with the probability of what is cut off.

    Args:
      x: An array of float32.
      bits: Random bits, from `random_bits`.

    Returns:
      An array of bfloat16, whose expectation is ``x``. Infinities and NaN stay.

    >>> x = jnp.full(10_000, 1.001)
    >>> rounded = stochastic_bfloat16(x, random_bits(x, step=1))
    >>> sorted({float(y) for y in rounded})
    [1.0, 1.0078125]
    >>> round(float(rounded.astype(jnp.float32).mean()), 3)
    1.001
    """
    # bfloat16 is the upper half of float32. The sum carries into it with probability
    # (lower half) / 2**16. All of this stays in 32 bits, which TPUs fuse.
    whole = lax.bitcast_convert_type(x, jnp.uint32) + (bits >> 16)
    y = lax.bitcast_convert_type(whole & jnp.uint32(0xFFFF0000), jnp.float32)
    # Infinity plus something is NaN, and some NaNs would become infinity.
    return jnp.where(jnp.isfinite(x) & jnp.isfinite(y), y, x).astype(jnp.bfloat16)
