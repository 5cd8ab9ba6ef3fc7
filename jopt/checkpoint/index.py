"""The index of a checkpoint: plain JSON that says what is in it.

JAX is not needed to read it, and takes longer to import than to read it.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401, teaches NumPy the names of bfloat16 and its like
import numpy as np

from jopt.checkpoint import msgpack_file, npz_file, safetensors_file, seal
from jopt.checkpoint.members import INDEX


VERSION = 1
ARRAYS = "arrays"  # the folder of the arrays, beside the index
FORMATS: dict[str, Any] = {
    ".npz": npz_file,
    ".safetensors": safetensors_file,
    ".msgpack": msgpack_file,
}

Index = dict[str, Any]


def read(path: Path) -> Index:
    """Return the index of the checkpoint at a path; its arrays are not read.

    Raises:
      FileNotFoundError: There is no checkpoint.
      ValueError: It is damaged, or not one of the library.
    """
    if path.is_dir():
        return index_of(path)
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{path} is not a checkpoint, which is a folder or has one of the suffixes "
            f"{', '.join(FORMATS)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with clear(path), FORMATS[path.suffix].opened(path) as reader:
        text = reader.index
    return parsed(path, text)


def parsed(where: Any, text: str | bytes) -> Index:
    """Return the index that is written in a checkpoint.

    Raises:
      ValueError: It is not one that `pack` has made.
    """
    try:
        index = json.loads(text)
        version = index["version"]
        if version == VERSION:
            _check_index(index)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} is damaged or not written by jopt.checkpoint: its index does not "
            f"have the right form ({type(error).__name__}: {error})"
        ) from error
    if version != VERSION:
        raise ValueError(
            f"the checkpoint {where} has version {version!r:.80}, and this jopt "
            f"reads version {VERSION}: update jopt"
        )
    return index


def _check_index(index: Index) -> None:
    for name, entry in index["entries"].items():
        shape, dtype = entry["shape"], entry["dtype"]
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name} has the shape {shape!r:.80}")
        if np.dtype(dtype).name != dtype or np.dtype(dtype).hasobject:
            raise ValueError(f"{name} has the dtype {dtype!r:.80}")
        entry["checksum"]
    for name in index["rng"] or {}:
        index["entries"][f"rng/{name}"]
    for key in ("step", "value", "metadata", "schema"):
        index[key]


def is_checkpoint(path: Path) -> bool:
    """Return whether a folder is a checkpoint, possibly damaged, and not a user's."""
    return (path / INDEX).is_file() or (path / ARRAYS).is_dir()


def index_of(path: Path) -> Index:
    """Return the index of the checkpoint in a folder."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    file = path / INDEX
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing: {path} is damaged or not written by jopt.checkpoint"
        )
    data = file.read_bytes()
    seal.check(file, io.BytesIO(data))
    return parsed(file, data)


@contextlib.contextmanager
def clear(path: Path) -> Iterator[None]:
    """Turn what a library raises about the content of a file into one error."""
    try:
        yield
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or not written by jopt.checkpoint: {error}"
        ) from error
