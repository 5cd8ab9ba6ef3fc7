"""A checksum of an array's bits that no sharding, order or device changes.

Each word of 32 bits is combined with its position and mixed; the sums of what comes
out, modulo 2^32, do not depend on the order of adding, so each device sums its own part
and the result is the same on one device and on many. The mixing is one to one, so one
element that is wrong changes the sum for certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


SEEDS = (0x9E3779B9, 0x7F4A7C15)  # of two sums: together they have 64 bits


@jax.jit
def copied(x: Any) -> tuple[jax.Array, jax.Array]:
    """The array in a buffer of its own, which may be donated, and its checksum.

    Args:
      x: Any array; a NumPy array goes to the default device.

    Returns:
      The copy, and two numbers of type uint32.
    """
    return jnp.copy(x), _sums(jnp.asarray(x))


_checksum = jax.jit(lambda x: _sums(jnp.asarray(x)))


def checksums(arrays: Mapping[str, Any]) -> dict[str, str]:
    """The checksum of every array as 16 hexadecimal digits.

    Args:
      arrays: By name.

    Returns:
      The digits by the same names.

    >>> checksums({"a": np.arange(3.0, dtype=np.float32)})
    {'a': 'b6514a372be449cb'}
    """
    return digits({name: _checksum(x) for name, x in arrays.items()})


def digits(sums: Mapping[str, jax.Array]) -> dict[str, str]:
    """Checksums as text, fetched from the device together."""
    found = jax.device_get(dict(sums))
    return {name: "".join(f"{int(n):08x}" for n in x) for name, x in found.items()}


def _sums(x: jax.Array) -> jax.Array:
    words = _words(x)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        along = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        place = _mixed(place + along)
    return jnp.stack(
        [
            jnp.sum(_mixed(words ^ _mixed(place + np.uint32(seed))), dtype=jnp.uint32)
            for seed in SEEDS
        ]
    )


def _words(x: jax.Array) -> jax.Array:
    """The bits as uint32: an element of more than 32 bits is several."""
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
