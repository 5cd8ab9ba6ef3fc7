"""Shapes and dtypes of arrays, from a file, without reading the arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jopt.checkpoint import index as indices
from jopt.checkpoint.safetensors_file import NAMES
from jopt.cli.output import UsageError


# Shape and dtype by the name of the array.
Entries = dict[str, dict[str, Any]]

FORMS = (
    "a checkpoint of jopt, a safetensors file, or JSON such as "
    '{"dense/kernel": [784, 10], "dense/bias": {"shape": [10], "dtype": "bfloat16"}}'
)


def safetensors_header(path: Path) -> tuple[Entries, dict[str, str]]:
    """The arrays and the metadata of a safetensors file of any origin."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100 << 20)))
        metadata = header.pop("__metadata__", {})
        entries = {
            name: {"shape": x["shape"], "dtype": NAMES.get(x["dtype"], x["dtype"])}
            for name, x in header.items()
        }
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    return entries, metadata


def parameters(path: Path) -> dict[str, Any]:
    """The parameters that a file describes, as a tree of ``jax.ShapeDtypeStruct``."""
    if not path.exists():
        raise UsageError(f"there is no file {path} with parameters; it may be {FORMS}")
    if path.suffix == ".json":
        try:
            flat = _flat(json.loads(path.read_text()), "")
        except ValueError as error:
            raise ValueError(
                f"{path} has no shapes: {error}. It may be {FORMS}"
            ) from error
    elif path.is_dir() or path.suffix in indices.FORMATS:
        flat = _of_checkpoint(path)
    else:
        raise UsageError(f"{path} has no parameters; it may be {FORMS}")
    return _tree(flat)


def _of_checkpoint(path: Path) -> Entries:
    if path.suffix == ".safetensors":
        entries, metadata = safetensors_header(path)
        if indices.INDEX not in metadata:  # from another library
            return entries
    entries = indices.read(path)["entries"]
    part = "params/"
    return {n.removeprefix(part): x for n, x in entries.items() if n.startswith(part)}


def _flat(value: Any, path: str) -> Entries:
    """Shapes by path, in JSON of any depth; float32 unless there is a dtype."""
    if isinstance(value, list):
        value = {"shape": value}
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{path or 'the file'} has {json.dumps(value)}")
    if set(value) <= {"shape", "dtype"} and isinstance(value.get("shape"), list):
        shape, dtype = value["shape"], value.get("dtype", "float32")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{path} has the shape {shape}")
        try:
            np.dtype(dtype)
        except TypeError:
            raise ValueError(f"{path} has the dtype {dtype!r}") from None
        return {path: {"shape": shape, "dtype": dtype}}
    flat: Entries = {}
    for name, x in value.items():
        flat |= _flat(x, f"{path}/{name}" if path else name)
    return flat


def _tree(flat: Entries) -> dict[str, Any]:
    """Nested dicts; names of torch's, such as ``layers.0.bias``, have dots."""
    import jax

    separator = "/" if any("/" in name for name in flat) else "."
    tree: dict[str, Any] = {}
    for name, entry in flat.items():
        *folders, last = name.split(separator)
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = jax.ShapeDtypeStruct(tuple(entry["shape"]), entry["dtype"])
    return tree
