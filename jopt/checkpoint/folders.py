"""A checkpoint in a folder, which orbax writes: arrays of any sharding, any processes.

The folder is written under another name and renamed when it is complete, so a
checkpoint that can be seen is whole. ``checkpoint.json`` in it has the checksum of
every other file.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jopt.checkpoint import seal
from jopt.checkpoint.contents import Arrays, Index, Read


ARRAYS, INDEX, PARTIAL = "arrays", "checkpoint.json", ".partial"
AS_BYTES = ("uint2", "uint4")  # which tensorstore, under orbax, does not have
_barriers = itertools.count()  # every process counts alike


def start(path: Path, arrays: Arrays, index: Index) -> Callable[[], None]:
    """Begin to write; when it returns, the arrays may be donated.

    Returns:
      What does the rest and returns when the checkpoint is on disk. It may be called in
      another thread.
    """
    if path.exists():
        raise FileExistsError(
            f"there is a checkpoint {path} already: choose another path or step, or "
            "delete it first"
        )
    ocp = _orbax().v1
    partial = path.with_name(path.name + PARTIAL)
    if jax.process_index() == 0:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
    _wait_for_all()
    # orbax writes no array without elements, and no checkpoint without arrays.
    stored = {name: _stored(x) for name, x in arrays.items() if x.size}
    writing = ocp.save_async(partial / ARRAYS, stored) if stored else None

    def finish():
        if writing is not None:
            writing.result()
        if jax.process_index() == 0:
            index["files"] = _checksums(partial, _files(partial))
            seal.write(partial / INDEX, seal.json_bytes(index))
            seal.sync_folder(partial)
            partial.rename(path)
            seal.sync_folder(path.parent)
        _wait_for_all()

    return finish


def index_of(path: Path) -> Index:
    """The index of the checkpoint in a folder."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    file = path / INDEX
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: {path} is damaged, or not written by jopt.checkpoint"
        )
    data = file.read_bytes()
    seal.check(file, data)
    return json.loads(data)


def read(path: Path) -> tuple[Index, Read]:
    """The index of the checkpoint in a folder, and what reads its arrays."""
    index = index_of(path)
    _check_files(path, index["files"])

    def of_these(shardings):
        ocp = _orbax().v1
        arrays: Arrays = {}
        wanted: Arrays = {}
        for name, where in shardings.items():
            entry = index["entries"][name]
            shape, dtype = tuple(entry["shape"]), entry["dtype"]
            if not math.prod(shape):
                arrays[name] = jnp.zeros(shape, dtype, device=where)
            elif where is None:
                wanted[name] = np.empty(shape, _stored_dtype(dtype))
            else:
                wanted[name] = jax.ShapeDtypeStruct(
                    shape, _stored_dtype(dtype), sharding=where
                )
        context = ocp.Context()
        context.pytree.loading.partial_load = True  # the state may be left out
        with context:
            found = ocp.load(path / ARRAYS, wanted) if wanted else {}
        for name, x in found.items():
            dtype = index["entries"][name]["dtype"]
            arrays[name] = x.astype(dtype) if dtype in AS_BYTES else x
        return arrays

    return index, of_these


def _stored(x: Any) -> Any:
    return x.astype(jnp.uint8) if x.dtype.name in AS_BYTES else x


def _stored_dtype(name: str) -> Any:
    return jnp.dtype("uint8" if name in AS_BYTES else name)


def remove(path: Path) -> None:
    """Delete a checkpoint: at no moment is a part of one visible."""
    partial = path.with_name(path.name + PARTIAL)
    path.rename(partial)
    shutil.rmtree(partial)


# Files.


def _files(folder: Path) -> list[str]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file.relative_to(folder).as_posix() for file in found)


def _checksums(folder: Path, names: list[str]) -> dict[str, list[int]]:
    """The length and the CRC-32 of each file."""

    def checksum(name):
        crc = length = 0
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                crc, length = zlib.crc32(block, crc), length + len(block)
        return [length, crc]

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(checksum, names), strict=True))


def _check_files(path: Path, files: Mapping[str, list[int]]) -> None:
    """Raise, in every process, unless all files are as they were written."""
    names = sorted(files)[jax.process_index() :: jax.process_count()]
    present = [name for name in names if (path / name).is_file()]
    found = _checksums(path, present)
    problems = [f"{path / n} is missing" for n in names if n not in found]
    for name, (length, crc) in found.items():
        was = files[name]
        if length != was[0]:
            problems.append(f"{path / name} has {length} bytes, had {was[0]}")
        elif crc != was[1]:
            problems.append(f"{path / name} has other bytes than were written")
    somewhere = bool(problems)
    if jax.process_count() > 1:
        somewhere = multihost_utils.process_allgather(np.array(somewhere)).any()
    if somewhere:
        shown = "\n  ".join(problems) or "another process says which file"
        raise ValueError(
            f"the checkpoint {path} is damaged:\n  {shown}\nRestore another one."
        )


# orbax.


def _orbax() -> Any:
    try:
        from orbax import checkpoint
        from orbax.checkpoint import v1  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "a checkpoint in a folder needs orbax 0.12.8 or newer: pip install -U "
            "orbax-checkpoint, or save to one file: .npz, .safetensors or .msgpack"
        ) from error
    return checkpoint


def _wait_for_all() -> None:
    """Return when every process is here; no collective, for it runs in threads too."""
    if jax.process_count() > 1:
        barrier = _orbax().multihost.get_barrier_sync_fn()
        barrier(key=f"jopt.checkpoint {next(_barriers)}", timeout_ms=600_000)
