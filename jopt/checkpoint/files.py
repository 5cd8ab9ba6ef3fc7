"""A checkpoint in one file, for one process: npz, safetensors or msgpack.

NumPy, safetensors and Flax can read these files too. Arrays are written and read one
after the other, so no second copy of all of them is in memory. A file replaces an older
one atomically.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jopt.checkpoint import seal
from jopt.checkpoint.contents import Arrays, Read
from jopt.checkpoint.index import FORMATS, Index, clear, parsed
from jopt.checkpoint.members import Member, Reader
from jopt.checkpoint.places import target
from jopt.checkpoint.unfinished import Unfinished


def write(path: Path, arrays: Arrays, index: Index) -> None:
    """Write a checkpoint to one file, in the format of its suffix."""
    if jax.process_count() > 1:
        raise ValueError(
            f"{path.name} is for one process, and there are {jax.process_count()}: "
            "save to a folder, a path without a suffix"
        )
    path = target(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder, and a path with a suffix is a file: choose another "
            "path, or delete the folder first"
        )
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a file: choose another path")
    with Unfinished(path.parent) as place:
        text = json.dumps(index)
        FORMATS[path.suffix].write(place.path, arrays, text)
        seal.seal_file(place.path)
        try:
            _check_opens(path.suffix, place.path, index["entries"], text)
        except ValueError as error:
            raise OSError(f"the checkpoint {path} was not written: {error}") from error
        place.publish(path)


def _check_opens(suffix: str, path: Path, entries: Mapping, index: str) -> None:
    """Raise unless the file declares all arrays and has this index."""
    with clear(path), FORMATS[suffix].opened(path) as reader:
        if reader.index != index:
            raise ValueError("its index cannot be read back")
        for name, entry in entries.items():
            _member(reader, name, entry)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Index, Read]]:
    """Give the index of the checkpoint in a file, and a function to read arrays.

    What was read may be used when the context has ended without an error: until then
    the checksum of the file is computed, beside other work.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not path.is_file():  # to open a pipe would wait for ever
        raise OSError(f"{path} is not a checkpoint, because it is not a file")
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(_check_seal, path)
        try:
            with contextlib.ExitStack() as stack:
                with clear(path):
                    opened_file = FORMATS[path.suffix].opened(path)
                    reader: Reader = stack.enter_context(opened_file)
                index = parsed(path, reader.index)
                yield index, lambda shardings: _read(path, reader, index, shardings)
        except Exception:
            checking.result()  # damage is the better explanation
            raise
        checking.result()


def _check_seal(path: Path) -> None:
    with path.open("rb") as file:
        seal.check(path, file)


def _read(
    path: Path, reader: Reader, index: Index, shardings: Any
) -> Iterator[tuple[str, jax.Array]]:
    """Read arrays; the memory of one is used again for the next."""
    entries = {name: index["entries"][name] for name in shardings}
    with clear(path):
        members = {name: _member(reader, name, x) for name, x in entries.items()}
    # The file holds what its members declare, so this is not larger than the file.
    memory = _aligned(max(map(_size, entries.values()), default=0))
    for name, where in shardings.items():
        dtype, shape = np.dtype(entries[name]["dtype"]), entries[name]["shape"]
        x = memory[: _size(entries[name])].view(dtype).reshape(shape)
        with clear(path):
            members[name].read(x)
        shared = jax.device_put(x, where)  # with the memory, on a CPU
        yield name, jax.block_until_ready(jax.device_put(shared, may_alias=False))


def _size(entry: Mapping[str, Any]) -> int:
    return math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize


def _aligned(size: int) -> np.ndarray:
    """Return memory that JAX can use on a CPU without a copy."""
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _member(reader: Reader, name: str, entry: Any) -> Member:
    """Return an array's member; raise unless the file and the index agree on it."""
    member = reader.member(name)
    expected = tuple(entry["shape"]), reader.dtype_name(np.dtype(entry["dtype"]))
    if (member.shape, member.dtype) != expected:
        raise ValueError(
            f"{name} is {member.dtype}{list(member.shape)} in the file and "
            f"{expected[1]}{list(expected[0])} in its index"
        )
    return member
