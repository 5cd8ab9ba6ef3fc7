"""NumPy's ``.npz``: a zip of ``.npy`` files. NumPy can read it.

Dtypes that NumPy lacks are stored as their bits.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from jopt.checkpoint import seal
from jopt.checkpoint.members import INDEX, Arrays, Member, blocks, fill, on_host


def write(path: Path, arrays: Arrays, index: str) -> None:
    """Write a file, one array after the other."""
    if with_nul := [name for name in arrays if "\0" in name]:
        raise ValueError(
            f"npz cannot hold the name {with_nul[0]!r}, which contains NUL: save to a "
            "folder, .safetensors or .msgpack"
        )
    with zipfile.ZipFile(path, "x") as file:
        for name in arrays:
            _add(file, name, on_host(arrays[name]))
        _add(file, INDEX, np.frombuffer(index.encode(), np.uint8))
        # The comment is the last field of a zip file, which NumPy ignores.
        file.comment = seal.EMPTY


def _add(file: zipfile.ZipFile, name: str, x: np.ndarray) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as stream:
        stored = x.view(_stored(x.dtype))
        npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(stored))
        # NumPy would copy each block, which takes longer than to write it.
        for block in blocks(x):
            stream.write(block)


def _stored(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.isbuiltin == 1 else np.dtype(f"uint{8 * dtype.itemsize}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open a file, to read from it what is needed."""
    with zipfile.ZipFile(path) as file, path.open("rb") as data:
        yield Reader(file, data)


class Reader:
    """An open file, see `members.Reader`."""

    def __init__(self, file: zipfile.ZipFile, data: BinaryIO):
        self._file, self._data = file, data
        member = self.member(INDEX)
        text = np.empty(member.shape, np.uint8)
        member.read(text)
        self.index = text.tobytes().decode()

    @staticmethod
    def dtype_name(dtype: np.dtype) -> str:
        return _stored(dtype).name

    def member(self, name: str) -> Member:
        entry = self._file.getinfo(f"{name}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        with self._file.open(entry) as stream:
            version = npy.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"{name} has the version {version} of .npy")
            shape, by_columns, dtype = npy.read_array_header_1_0(stream)
            start = stream.tell()
        size = entry.file_size - start
        if by_columns or size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has {size} bytes of data for {dtype}{shape}")

        def read(x):
            # Past zipfile, whose checksum of these bytes would be the third.
            self._data.seek(entry.header_offset + 26)
            lengths = struct.unpack("<HH", self._data.read(4))
            self._data.seek(entry.header_offset + 30 + sum(lengths) + start)
            fill(self._data, x)

        return Member(shape, dtype.name, read)
