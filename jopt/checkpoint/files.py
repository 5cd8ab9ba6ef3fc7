"""A checkpoint in one file, for one process: npz, safetensors or msgpack.

NumPy, safetensors and Flax can read these files too. The file is built in memory and
replaces an older one atomically.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jopt.checkpoint import seal
from jopt.checkpoint.contents import Arrays, Index, Read
from jopt.checkpoint.places import target
from jopt.checkpoint.unfinished import Unfinished


INDEX = "checkpoint.json"


def write(path: Path, arrays: Arrays, index: Index) -> None:
    """Write a checkpoint to one file, in the format of its suffix."""
    if jax.process_count() > 1:
        raise ValueError(
            f"{path.name} is for one process, and there are {jax.process_count()}: "
            "save to a folder, a path without a suffix"
        )
    to_bytes, _ = FORMATS[path.suffix]
    host = {name: np.asarray(x) for name, x in jax.device_get(arrays).items()}
    data = seal.seal(to_bytes(host, json.dumps(index)))
    path = target(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder, and a path with a suffix is a file: choose another "
            "path, or delete the folder first"
        )
    with Unfinished(path.parent) as place:
        seal.write(place.path, data)
        place.publish(path)


def read(path: Path) -> tuple[Index, Read]:
    """Return the index of the checkpoint in a file, and a function to read arrays."""
    _, from_bytes = FORMATS[path.suffix]
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    data = path.read_bytes()
    seal.check(path, data)
    arrays, text = from_bytes(data)
    index = json.loads(text)

    def load(shardings):
        host = {
            name: _typed(arrays[name], index["entries"][name]) for name in shardings
        }
        return {
            name: x if (where := shardings[name]) is None else jax.device_put(x, where)
            for name, x in host.items()
        }

    return index, load


def _typed(x: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    return x.view(np.dtype(entry["dtype"])).reshape(entry["shape"])


# npz: NumPy's zip of .npy files. Dtypes that NumPy lacks are stored as their bits.


def _to_npz(arrays: Arrays, index: str) -> bytes:
    if with_nul := [name for name in arrays if "\0" in name]:
        raise ValueError(
            f"npz cannot hold the name {with_nul[0]!r}, which contains NUL: save to a "
            "folder, .safetensors or .msgpack"
        )
    buffer = io.BytesIO()
    stored = {name: _bits(x) for name, x in arrays.items()}
    stored[INDEX] = np.frombuffer(index.encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, **stored)
    # The comment is the last field of a zip file, which NumPy ignores.
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = seal.EMPTY
    return buffer.getvalue()


def _bits(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.isbuiltin == 1 else x.view(f"uint{8 * x.dtype.itemsize}")


def _from_npz(data: bytes) -> tuple[Arrays, str]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, arrays.pop(INDEX).tobytes().decode()


# safetensors: the length of a JSON header, the header, then the bytes of all arrays.

SAFETENSORS = {
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


def _to_safetensors(arrays: Arrays, index: str) -> bytes:
    # With wide elements first, every array is aligned. The seal comes last.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    stored = [(name, arrays[name]) for name in order]
    stored.append(("seal", np.frombuffer(seal.EMPTY, np.uint8)))
    header: dict[str, Any] = {"__metadata__": {INDEX: index}}
    end = 0
    for name, x in stored:
        if x.dtype.name not in SAFETENSORS:
            raise TypeError(
                f"safetensors has no dtype {x.dtype.name}, the dtype of {name}: save "
                "to a folder, .npz or .msgpack"
            )
        header[name] = {
            "dtype": SAFETENSORS[x.dtype.name],
            "shape": list(x.shape),
            "data_offsets": [end, end := end + x.nbytes],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = [np.ascontiguousarray(x).tobytes() for _, x in stored]
    return b"".join([len(text).to_bytes(8, "little"), text, *body])


def _from_safetensors(data: bytes) -> tuple[Arrays, str]:
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    index = header.pop("__metadata__")[INDEX]
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        part = memoryview(data)[start + begin : start + end]
        arrays[name] = np.frombuffer(part, np.uint8)
    return arrays, index


# Flax's msgpack.


def _to_msgpack(arrays: Arrays, index: str) -> bytes:
    content = {"arrays": arrays, INDEX: index, "seal": seal.EMPTY.decode()}
    return _flax().msgpack_serialize(content)


def _from_msgpack(data: bytes) -> tuple[Arrays, str]:
    content = _flax().msgpack_restore(data)
    return content["arrays"], content[INDEX]


def _flax() -> Any:
    try:
        import flax.serialization
    except ImportError as error:
        raise ImportError(
            "a .msgpack checkpoint needs Flax: pip install flax, or save as .npz"
        ) from error
    return flax.serialization


FORMATS = {
    ".npz": (_to_npz, _from_npz),
    ".safetensors": (_to_safetensors, _from_safetensors),
    ".msgpack": (_to_msgpack, _from_msgpack),
}
