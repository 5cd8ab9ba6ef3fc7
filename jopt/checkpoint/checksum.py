"""A checksum of an array's bits that does not depend on sharding, order or device.

Each 32-bit word is combined with its position and mixed. The mixed words are added
modulo 2^32, in any order, so each device can sum its own part, and one device and many
get the same result. The mixing is one to one, so a single wrong element always changes
the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


SEEDS = (0x9E3779B9, 0x7F4A7C15)  # one per sum; two sums give 64 bits


# The checksum of an array as uint32 of shape (2,), computed beside other work.
checksum = jax.jit(lambda x: _sums(_on_device(jnp.asarray(x))))


def checksums(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksum of every array as 16 hexadecimal digits.

    Args:
      arrays: Arrays by name.

    Returns:
      The digits by the same names.

    >>> checksums({"a": np.arange(3.0, dtype=np.float32)})
    {'a': 'b6514a372be449cb'}
    """
    return digits({name: checksum(x) for name, x in arrays.items()})


def digits(sums: Mapping[str, jax.Array]) -> dict[str, str]:
    """Format checksums as text, after one transfer from the device for all of them."""
    host = jax.device_get(dict(sums))
    return {name: "".join(f"{int(n):08x}" for n in x) for name, x in host.items()}


def _on_device(x: jax.Array) -> jax.Array:
    if jax.typeof(x).memory_space != jax.memory.Space.Host:
        return x
    return jax.device_put(x, jax.memory.Space.Device)


def _sums(x: jax.Array) -> jax.Array:
    words = _words(x)
    # Mixing in one axis after the other, instead of flattening, keeps the sharding, and
    # the position of an element does not overflow in large arrays.
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = _mixed(position + index)
    sums = [_mixed(words ^ _mixed(position + np.uint32(seed))) for seed in SEEDS]
    # Both sums in one pass: XLA:CPU vectorizes it, but not two passes.
    zeros = [np.uint32(0)] * len(sums)
    axes = range(words.ndim)
    return jnp.stack(jax.lax.reduce(sums, zeros, _added, axes))


def _added(sums: Sequence[jax.Array], more: Sequence[jax.Array]) -> list[jax.Array]:
    return [a + b for a, b in zip(sums, more, strict=True)]


def _words(x: jax.Array) -> jax.Array:
    """Return the bits as uint32; an element of more than 32 bits is several words."""
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    bits = jax.dtypes.itemsize_bits(x.dtype)
    unsigned = jnp.dtype(f"uint{min(bits, 32)}")
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _mixed(h: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3 (Appleby, 2011): a permutation of the words."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))
