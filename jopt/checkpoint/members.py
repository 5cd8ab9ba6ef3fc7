"""Arrays that are written to a file and read from it one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np


Arrays = Mapping[str, Any]
INDEX = "checkpoint.json"  # the name of the index in a file
BLOCK = 1 << 20


class Member(NamedTuple):
    """What a file says about an array."""

    shape: tuple[int, ...]
    dtype: str  # as the file calls it
    read: Callable[[np.ndarray], None]  # fills an array with the data


class Reader(Protocol):
    """An open file."""

    index: str

    def dtype_name(self, dtype: np.dtype) -> str:
        """Return what the file calls a dtype."""
        ...

    def member(self, name: str) -> Member:
        """Return what the file says about an array, before its data are read."""
        ...


def on_host(x: Any) -> np.ndarray:
    """Return the values of an array.

    JAX keeps the values that it has copied from a device with the array, so another
    array with the same buffers is made, and soon forgotten.
    """
    jax = sys.modules.get("jax")  # an array of JAX has imported it
    if jax is not None and isinstance(x, jax.Array):
        shards = [shard.data for shard in x.addressable_shards]
        x = jax.make_array_from_single_device_arrays(x.shape, x.sharding, shards)
    return np.asarray(x, order="C")


def fill(stream: Any, x: np.ndarray) -> None:
    """Read an array from a file in small blocks; raise if the file is too short."""
    rest = as_bytes(x).data
    while rest:
        count = stream.readinto(rest[:BLOCK])
        if not count:
            raise EOFError("the file ends within an array")
        rest = rest[count:]


def blocks(x: np.ndarray) -> Iterator[memoryview]:
    """Return the bytes of an array where they are in memory, in small blocks."""
    data = as_bytes(x).data
    return (data[i : i + BLOCK] for i in range(0, len(data), BLOCK))


def as_bytes(x: np.ndarray) -> np.ndarray:
    """Return a view of a contiguous array as bytes."""
    return x.reshape(-1).view(np.uint8)
