"""A checkpoint in a folder, written by orbax, for any sharding and many processes.

The folder is written under another name and renamed when it is complete, so a visible
checkpoint is whole. Its ``checkpoint.json`` has the checksum of every other file.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jopt.checkpoint import seal, together
from jopt.checkpoint.contents import Arrays, Read
from jopt.checkpoint.index import ARRAYS, INDEX, Index, index_of, is_checkpoint
from jopt.checkpoint.places import plain, target
from jopt.checkpoint.unfinished import Unfinished, unfinished_path
from jopt.values.arguments import abbreviated


AS_BYTES = ("uint2", "uint4")  # orbax's tensorstore lacks these dtypes


def start(path: Path, arrays: Arrays, index: Index) -> Callable[[], None]:
    """Begin to write a checkpoint; when it returns, the arrays may be donated.

    Returns:
      A function that finishes the work and returns when the checkpoint is on disk. It
      may be called in another thread.
    """
    path = target(path)
    ocp = _orbax().v1
    partial, place = _begin(path)
    # orbax writes neither an array without elements nor a checkpoint without arrays.
    stored = {name: _stored(x) for name, x in arrays.items() if x.size}
    types = {name: (tuple(x.shape), x.dtype.name) for name, x in stored.items()}
    with contextlib.ExitStack() as stack:
        if place is not None:
            stack.callback(place.close)
        stack.callback(together.wait_for_all)
        safe = stack.enter_context(plain(partial)) / ARRAYS
        writing = ocp.save_async(safe, stored) if stored else None
        at_end = stack.pop_all()

    def finish():
        with at_end:
            if writing is not None:
                writing.result()
            if place is None:
                return
            if stored:
                _check_opens(path, ocp, safe, types)
            index["files"] = _checksums(partial, _files(partial))
            seal.write(partial / INDEX, seal.json_bytes(index))
            # The contents must be on disk before the rename makes them visible.
            seal.sync_all(partial)
            place.publish(path)

    return finish


def _begin(path: Path) -> tuple[Path, Unfinished | None]:
    """Make the folder to write to, in process 0; all processes return its path.

    Raises:
      OSError: It could not be made. Every process raises, so that none waits.
    """
    digits = together.new_name()
    partial = unfinished_path(path.parent, digits)
    place = error = None
    if jax.process_index() == 0:
        try:
            if path.exists():
                what = "a checkpoint" if is_checkpoint(path) else "something else at"
                raise FileExistsError(
                    f"there is already {what} {path}: choose another path or step, or "
                    "delete it first"
                )
            place = Unfinished(path.parent, digits)
            partial.mkdir()
        except OSError as problem:
            error = problem
            if place is not None:
                place.close()
    failed = together.same_in_all(np.array(error is not None))
    if error is not None:
        raise error
    if failed:
        raise OSError(f"process 0 cannot write {path}: its error says why")
    return partial, place


def _check_opens(path: Path, ocp: Any, folder: Path, types: Mapping[str, Any]) -> None:
    """Raise unless orbax finds all arrays in what it has written."""
    metadata = ocp.metadata(folder).metadata or {}
    opened = {
        name: (tuple(x.shape), np.dtype(x.dtype).name) for name, x in metadata.items()
    }
    if wrong := [name for name in types if opened.get(name) != types[name]]:
        raise OSError(
            f"the checkpoint {path} was not written: orbax cannot read "
            f"{abbreviated(wrong)} back from its folder. Save to one file, such as "
            ".safetensors, or to another path."
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Index, Read]]:
    """Give the index of the checkpoint in a folder, and a function to read arrays."""
    index = index_of(path)
    _check_files(path, index["files"])

    def load(shardings):
        ocp = _orbax().v1
        arrays: Arrays = {}
        templates: Arrays = {}
        for name, where in shardings.items():
            entry = index["entries"][name]
            shape, dtype = tuple(entry["shape"]), entry["dtype"]
            if not math.prod(shape):
                arrays[name] = jnp.zeros(shape, dtype, device=where)
            elif where is None:
                templates[name] = np.empty(shape, _stored_dtype(dtype))
            else:
                templates[name] = jax.ShapeDtypeStruct(
                    shape, _stored_dtype(dtype), sharding=where
                )
        context = ocp.Context()
        context.pytree.loading.partial_load = True  # without tx, no state is read
        with context, plain(path) as safe:
            arrays |= ocp.load(safe / ARRAYS, templates) if templates else {}
        for name in shardings:  # not all in memory twice, once they are copied
            x, dtype = arrays.pop(name), index["entries"][name]["dtype"]
            # Memory that orbax holds too could not be donated.
            yield name, jnp.copy(x.astype(dtype) if dtype in AS_BYTES else x)

    yield index, load


def _stored(x: Any) -> Any:
    return x.astype(jnp.uint8) if x.dtype.name in AS_BYTES else x


def _stored_dtype(name: str) -> Any:
    return jnp.dtype("uint8" if name in AS_BYTES else name)


def remove(path: Path) -> None:
    """Delete a checkpoint; moving it first leaves no visible incomplete folder."""
    with Unfinished(path.parent) as place, contextlib.suppress(FileNotFoundError):
        path.rename(place.path)  # unless another program has removed it


# Files.


def _files(folder: Path) -> list[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _checksums(folder: Path, names: list[str]) -> dict[str, list[int]]:
    """Return the length and the CRC-32 of each file."""

    def checksum(name):
        crc = length = 0
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                crc, length = zlib.crc32(block, crc), length + len(block)
        return [length, crc]

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(checksum, names), strict=True))


def _check_files(path: Path, files: Mapping[str, list[int]]) -> None:
    """Raise, in every process, unless all files have the recorded bytes."""
    # Each process checks its share, so that every file is read once.
    names = sorted(files)[jax.process_index() :: jax.process_count()]
    present = [name for name in names if (path / name).is_file()]
    actual = _checksums(path, present)
    problems = [f"{path / n} is missing" for n in names if n not in actual]
    for name, (length, crc) in actual.items():
        written_length, written_crc = files[name]
        if length != written_length:
            problems.append(f"{path / name} has {length} bytes, had {written_length}")
        elif crc != written_crc:
            problems.append(f"{path / name} has other bytes than were written")
    damaged = bool(problems)
    if jax.process_count() > 1:
        damaged = multihost_utils.process_allgather(np.array(damaged)).any()
    if damaged:
        shown = "\n  ".join(problems) or "another process names the file"
        raise ValueError(
            f"the checkpoint {path} is damaged:\n  {shown}\nRestore another checkpoint."
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
