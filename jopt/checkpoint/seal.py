"""Bytes that contain their own checksum."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any


# The last mark in the data is followed by the checksum of all other bytes.
MARK = b"jopt-crc32="
EMPTY = MARK + b"00000000"


def seal(data: bytes) -> bytes:
    """Return the bytes with their checksum written into the last empty mark."""
    at = data.rindex(EMPTY) + len(MARK)
    return b"".join([data[:at], b"%08x" % zlib.crc32(data), data[at + 8 :]])


def check(path: Path, data: bytes) -> None:
    """Raise unless the bytes are as they were sealed.

    Raises:
      ValueError: A byte has changed; the message names the file.
    """
    at = data.rfind(MARK) + len(MARK)
    view = memoryview(data)
    crc = zlib.crc32(view[:at])
    crc = zlib.crc32(view[at + 8 :], zlib.crc32(b"00000000", crc))
    if at < len(MARK) or view[at : at + 8] != b"%08x" % crc:
        raise ValueError(
            f"{path} is damaged or not written by jopt.checkpoint: its bytes do not "
            "match its checksum. Restore another checkpoint."
        )


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


def sync_folder(path: Path) -> None:
    """Flush the entries of a folder to disk, so that a rename in it is permanent."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
