"""Bytes that tell when they are not what was written."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any


# The checksum of all other bytes stands in the last of these marks.
MARK = b"jopt-crc32="
EMPTY = MARK + b"00000000"


def seal(data: bytes) -> bytes:
    """The bytes with their checksum in the last empty mark."""
    at = data.rindex(EMPTY) + len(MARK)
    return b"".join([data[:at], b"%08x" % zlib.crc32(data), data[at + 8 :]])


def check(path: Path, data: bytes) -> None:
    """Raise unless these are the bytes that were sealed.

    Raises:
      ValueError: They are not; the message names the file.
    """
    at = data.rfind(MARK) + len(MARK)
    view = memoryview(data)
    crc = zlib.crc32(view[:at])
    crc = zlib.crc32(view[at + 8 :], zlib.crc32(b"00000000", crc))
    if at < len(MARK) or view[at : at + 8] != b"%08x" % crc:
        raise ValueError(
            f"{path} is damaged, or not written by jopt.checkpoint: its bytes do not "
            "have the checksum that should be in it. Restore another one."
        )


def json_bytes(content: dict[str, Any]) -> bytes:
    """A JSON file that ends with its checksum."""
    text = json.dumps(content | {"seal": EMPTY.decode()}, indent=1)
    return seal(text.encode() + b"\n")


def write(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Put the names that a folder holds on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
