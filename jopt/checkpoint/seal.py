"""Files and bytes that contain their own checksum."""

from __future__ import annotations

import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO


# The last mark in the data is followed by the checksum of all other bytes.
MARK = b"jopt-crc32="
DIGITS = b"00000000"
EMPTY = MARK + DIGITS
BLOCK = 1 << 22


def seal(data: bytes) -> bytes:
    """Return the bytes with their checksum written into the last empty mark."""
    at = data.rindex(EMPTY) + len(MARK)
    return b"".join([data[:at], b"%08x" % zlib.crc32(data), data[at + 8 :]])


def seal_file(path: Path) -> None:
    """Write the checksum of a file after its last mark; on return it is on disk."""
    with path.open("r+b") as file, ThreadPoolExecutor(1) as pool:
        # Nearly all bytes go to disk while the checksum is computed.
        flushing = pool.submit(os.fsync, file.fileno())
        at = _after_mark(file)
        crc = _checksum(file, at)
        flushing.result()
        file.seek(at)
        file.write(b"%08x" % crc)
        file.flush()
        os.fsync(file.fileno())


def check(path: Path, file: BinaryIO) -> None:
    """Raise unless the bytes of a file are as they were sealed.

    Raises:
      ValueError: A byte has changed; the message names the file.
    """
    at = _after_mark(file)
    if at >= 0:
        file.seek(at)
        if file.read(8) == b"%08x" % _checksum(file, at):
            return
    raise ValueError(
        f"{path} is damaged or not written by jopt.checkpoint: its bytes do not "
        "match its checksum. Restore another checkpoint."
    )


def _after_mark(file: BinaryIO) -> int:
    """Return where the digits after the last mark are; -1 without a mark."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        found = file.read(end - start + len(MARK) - 1).rfind(MARK)
        if found >= 0:
            return start + found + len(MARK)
        end = start
    return -1


def _checksum(file: BinaryIO, at: int) -> int:
    """Return the checksum of a file, as if there were zeros in the digits' place."""
    file.seek(0)
    crc = _checksum_of(file, at, 0)
    crc = zlib.crc32(DIGITS, crc)
    file.seek(at + len(DIGITS))
    return _checksum_of(file, None, crc)


def _checksum_of(file: BinaryIO, length: int | None, crc: int) -> int:
    """Add the next bytes of a file, all if the length is None, to a checksum."""
    buffer = memoryview(bytearray(BLOCK))
    while length != 0:
        size = BLOCK if length is None else min(BLOCK, length)
        if not (count := file.readinto(buffer[:size])):  # type: ignore[attr-defined]
            break
        crc = zlib.crc32(buffer[:count], crc)
        length = None if length is None else length - count
    return crc


def json_bytes(content: dict[str, Any]) -> bytes:
    """Return the bytes of a JSON file that ends with its checksum."""
    text = json.dumps(content | {"seal": EMPTY.decode()}, indent=1)
    return seal(text.encode() + b"\n")


def write(path: Path, data: bytes) -> None:
    """Write a new file; on return its contents are on disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_all(folder: Path) -> None:
    """Flush all files and folders in a folder, and the folder itself, to disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Flush a file to disk, or the names in a folder, so that a rename stays."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
