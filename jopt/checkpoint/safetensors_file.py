"""The format of Hugging Face's safetensors, whose library checks every file.

It is a JSON header and the bytes of the arrays. The library's own writer would copy all
arrays first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jopt.checkpoint import seal
from jopt.checkpoint.members import INDEX, Arrays, Member, blocks, fill, on_host


DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
NAMES = {code: name for name, code in DTYPES.items()}


def write(path: Path, arrays: Arrays, index: str) -> None:
    """Write a file from the memory where the arrays are."""
    for name, x in arrays.items():
        if x.dtype.name not in DTYPES:
            raise TypeError(
                f"safetensors has no dtype {x.dtype.name}, the dtype of {name}: save "
                "to a folder, .npz or .msgpack"
            )
    _library()  # which has to check what is written here
    stored = {**arrays, "seal": np.frombuffer(seal.EMPTY, np.uint8)}
    # Wide elements first, so that all are aligned; the seal is the last name of all.
    names = sorted(stored, key=lambda n: (-stored[n].dtype.itemsize, n))
    header: dict[str, Any] = {"__metadata__": {INDEX: index}}
    end = 0
    for name in names:
        x = stored[name]
        begin, end = end, end + x.size * x.dtype.itemsize
        header[name] = {
            "dtype": DTYPES[x.dtype.name],
            "shape": list(x.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            for block in blocks(on_host(stored[name])):
                file.write(block)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open a file, to read from it what is needed."""
    with path.open("rb") as file:
        yield Reader(path, file)


class Reader:
    """An open file, see `members.Reader`."""

    def __init__(self, path: Path, file: BinaryIO):
        self._file = file
        self._places: dict[str, tuple[int, tuple[int, ...], str]] = {}
        end = 0
        # The library checks the header, but it cannot read all of its dtypes to NumPy.
        with _library().safe_open(path, framework="numpy") as checked:
            self.index = checked.metadata()[INDEX]
            for name in checked.offset_keys():  # the library allows no gaps
                entry = checked.get_slice(name)
                shape, code = tuple(entry.get_shape()), entry.get_dtype()
                self._places[name] = end, shape, code
                end += math.prod(shape) * np.dtype(NAMES[code]).itemsize
        self._data = file.seek(0, os.SEEK_END) - end

    @staticmethod
    def dtype_name(dtype: np.dtype) -> str:
        return DTYPES[dtype.name]

    def member(self, name: str) -> Member:
        start, shape, dtype = self._places[name]

        def read(x):
            self._file.seek(self._data + start)
            fill(self._file, x)

        return Member(shape, dtype, read)


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "a .safetensors checkpoint needs safetensors: pip install safetensors, or "
            "save as .npz"
        ) from error
    return safetensors
