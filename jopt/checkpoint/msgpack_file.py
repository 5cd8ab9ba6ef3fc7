"""Flax's msgpack: an array is an extension that holds its shape, dtype and bytes.

`flax.serialization.msgpack_restore` can read the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jopt.checkpoint import seal
from jopt.checkpoint.members import INDEX, Arrays, Member, as_bytes, fill, on_host


ARRAY = 1  # Flax's number for an array
CHUNKED = "__msgpack_chunked_array__"
CHUNK = 1 << 30  # bytes; Flax splits what is larger
SMALL = 1 << 16  # bytes; what is smaller has a short head, and may be copied
BIN_16, BIN_32, EXT_32 = 0xC5, 0xC6, 0xC9


def write(path: Path, arrays: Arrays, index: str) -> None:
    """Write a file, one array after the other."""
    packer = _library().Packer()
    with path.open("xb") as file:
        file.write(packer.pack_map_header(3) + packer.pack("arrays"))
        file.write(packer.pack_map_header(len(arrays)))
        for name in arrays:
            file.write(packer.pack(name))
            for part in _parts(packer, on_host(arrays[name])):
                file.write(part)
        for text in (INDEX, index, "seal", seal.EMPTY.decode()):
            file.write(packer.pack(text))


def _parts(packer: Any, x: np.ndarray) -> Iterator[Any]:
    """The bytes of an array, large ones where they are in memory."""
    if x.nbytes > CHUNK:
        size = CHUNK // x.itemsize
        flat = x.reshape(-1)
        chunks = [flat[i : i + size] for i in range(0, x.size, size)]
        shape = {str(i): length for i, length in enumerate(x.shape)}
        yield packer.pack_map_header(3)
        yield packer.pack(CHUNKED) + packer.pack(True)
        yield packer.pack("shape") + packer.pack(shape)
        yield packer.pack("chunks") + packer.pack_map_header(len(chunks))
        for i, chunk in enumerate(chunks):
            yield packer.pack(str(i))
            yield from _parts(packer, chunk)
        return
    head = packer.pack_array_header(3)
    head += packer.pack(x.shape) + packer.pack(x.dtype.name)
    if x.nbytes < SMALL:
        content = head + packer.pack(x.tobytes())
        yield packer.pack_ext_type(ARRAY, content)
        return
    # The packer would copy all bytes twice.
    head += struct.pack(">BI", BIN_32, x.nbytes)
    yield struct.pack(">BIb", EXT_32, len(head) + x.nbytes, ARRAY) + head
    yield as_bytes(x)


class _Array(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    parts: Sequence[tuple[int, int] | bytes]  # begin and length in the file, or bytes


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open a file, to read from it what is needed."""
    with path.open("rb") as file, path.open("rb") as ahead:
        yield Reader(file, ahead)


class Reader:
    """An open file, see `members.Reader`."""

    def __init__(self, file: BinaryIO, ahead: BinaryIO):
        self._library = _library()
        self._file, self._ahead = file, ahead  # the unpacker reads ahead
        self._size = file.seek(0, os.SEEK_END)
        self._unpack_from(0)
        content = self._value(0)
        self.index, self._arrays = content[INDEX], content["arrays"]

    @staticmethod
    def dtype_name(dtype: np.dtype) -> str:
        return dtype.name

    def member(self, name: str) -> Member:
        shape, dtype, parts = _joined(self._arrays[name])

        def read(x):
            rest = as_bytes(x)
            for part in parts:
                length = len(part) if isinstance(part, bytes) else part[1]
                if isinstance(part, bytes):
                    rest[:length] = np.frombuffer(part, np.uint8)
                else:
                    self._file.seek(part[0])
                    fill(self._file, rest[:length])
                rest = rest[length:]
            if rest.size:
                raise EOFError(f"{name} has too few bytes")

        return Member(shape, dtype, read)

    def _unpack_from(self, at: int) -> None:
        self._ahead.seek(at)
        self._start = at
        self._unpacker = self._library.Unpacker(
            self._ahead, read_size=SMALL, max_buffer_size=0
        )

    def _value(self, depth: int) -> Any:
        """Return the next value, with the places of large arrays."""
        at = self._start + self._unpacker.tell()
        self._file.seek(at)
        head = self._file.read(4096)
        kind = head[0]
        if kind == EXT_32:
            length = struct.unpack_from(">I", head, 1)[0]
            self._unpack_from(at + 6 + length)
            return self._large_array(head[6:], at + 6, length)
        if 0x80 <= kind <= 0x8F or kind in (0xDE, 0xDF):  # a map
            if depth > 4:
                raise ValueError("maps are nested too deeply")
            count = self._unpacker.read_map_header()
            return {
                self._unpacker.unpack(): self._value(depth + 1) for _ in range(count)
            }
        value = self._unpacker.unpack()
        if isinstance(value, self._library.ExtType):
            shape, dtype, data = self._library.unpackb(value.data)
            return _array(shape, dtype, data, len(data))
        return value

    def _large_array(self, head: bytes, at: int, length: int) -> _Array:
        unpacker = self._library.Unpacker()
        unpacker.feed(head)
        unpacker.read_array_header()
        shape, dtype = unpacker.unpack(), unpacker.unpack()
        begin = unpacker.tell()
        size = {BIN_16: ">H", BIN_32: ">I"}[head[begin]]
        count = struct.unpack_from(size, head, begin + 1)[0]
        begin += 1 + struct.calcsize(size)
        if begin + count != length or at + length > self._size:
            raise EOFError("the file ends within an array")
        return _array(shape, dtype, (at + begin, count), count)


def _array(shape: Any, dtype: str, part: Any, length: int) -> _Array:
    if length != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{length} bytes of data for {dtype}{shape}")
    return _Array(tuple(shape), dtype, [part])


def _joined(x: Any) -> _Array:
    """Return an array that Flax has split as one."""
    if isinstance(x, _Array):
        return x
    shape = tuple(x["shape"][str(i)] for i in range(len(x["shape"])))
    chunks = [x["chunks"][str(i)] for i in range(len(x["chunks"]))]
    return _Array(shape, chunks[0].dtype, [part for c in chunks for part in c.parts])


def _library() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(
            "a .msgpack checkpoint needs msgpack: pip install msgpack, or save as .npz"
        ) from error
    return msgpack
