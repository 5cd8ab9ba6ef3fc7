"""Checkpoints in one file: the memory they need, and files that others have made."""

from __future__ import annotations

import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import safetensors.numpy

import jopt
from jopt.checkpoint import (
    Checkpointer,
    files,
    members,
    msgpack_file,
    restore,
    save,
    seal,
)


TX = jopt.sgd(0.1, momentum=0.9)
PARAMS = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4, jnp.bfloat16)}
each_form = pytest.mark.parametrize(
    "form", ["run.npz", "run.safetensors", "run.msgpack"]
)
MIB = 1 << 20


def saved(path: Path, params: Any = PARAMS) -> Path:
    return save(path, params=params, opt_state=TX.init(params), tx=TX)


def largest(function: Callable[[], Any]) -> float:
    """The largest memory in MiB that Python and NumPy have during a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


@each_form
def test_no_second_copy_of_all_arrays_is_in_memory(tmp_path: Path, form: str) -> None:
    """72 MiB of parameters and momentum, in arrays of 3 MiB."""
    params = {f"w{i}": jnp.full((768, 1024), i, jnp.float32) for i in range(12)}
    path, state = tmp_path / form, TX.init(params)
    given = {"params": params, "opt_state": state, "tx": TX}
    save(path, **given)  # what is loaded and compiled once does not count
    restore(path, params=params, tx=TX)
    # Blocks of 4 MiB, and one array.
    assert largest(lambda: save(path, **given)) < 12
    assert largest(lambda: restore(path, params=params, tx=TX)) < 12


def test_the_values_of_an_array_are_not_kept_with_it() -> None:
    """On a CPU they are the array's memory; those of eight devices are joined."""
    where = jax.NamedSharding(jax.make_mesh((8,), ("a",)), jax.P("a"))
    for sharding in (None, where):
        x = jax.device_put(np.arange(16.0, dtype=np.float32), sharding)
        np.testing.assert_array_equal(members.on_host(x), np.arange(16.0))
        assert x._npy_value is None  # type: ignore[attr-defined]


@each_form
def test_anyone_may_read_the_file_whom_the_umask_allows(
    tmp_path: Path, form: str
) -> None:
    (tmp_path / "like").touch()
    assert saved(tmp_path / form).stat().st_mode == (tmp_path / "like").stat().st_mode


@each_form
def test_what_cannot_be_read_back_does_not_become_visible(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / form)
    before = (tmp_path / form).read_bytes()
    writer = files.FORMATS[Path(form).suffix]
    write = writer.write

    def losing(path: Path, arrays: Any, index: str) -> None:
        write(path, dict(list(arrays.items())[1:]), index)

    def other_index(path: Path, arrays: Any, index: str) -> None:
        write(path, arrays, index.replace("0.9", "0.8"))

    for wrong in (losing, other_index):
        monkeypatch.setattr(writer, "write", wrong)
        with pytest.raises(OSError, match=f"the checkpoint .*{form} was not written"):
            saved(tmp_path / form)
        assert os.listdir(tmp_path) == [form]
        assert (tmp_path / form).read_bytes() == before


# Flax.


def test_arrays_that_flax_splits_are_written_and_read_as_flax_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those above 1 GiB are. What is above 64 KiB has a longer head."""
    monkeypatch.setattr(msgpack_file, "CHUNK", 100_000)
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 100_000)
    sizes = [1, 16, 16_360, 16_380, 16_384, 25_000, 25_001, 40_000]
    params = {str(n): jnp.arange(float(n)) for n in sizes}
    params["matrix"] = jnp.arange(60_000.0).reshape(2, 1, 30_000)
    path = saved(tmp_path / "run.msgpack", params)
    content = flax.serialization.msgpack_restore(path.read_bytes())
    for name, x in params.items():
        np.testing.assert_array_equal(content["arrays"][f"params/{name}"], x)
    content["seal"] = seal.EMPTY.decode()
    path.write_bytes(flax.serialization.msgpack_serialize(content))
    seal.seal_file(path)
    found = restore(path, params=params, tx=TX).params
    for name, x in params.items():
        np.testing.assert_array_equal(found[name], x)


# Files that somebody else has made.


@each_form
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, form: str) -> None:
    os.mkfifo(tmp_path / form)
    with pytest.raises(OSError, match=f"{form} is not a checkpoint, because it is not"):
        restore(tmp_path / form, params=PARAMS)
    with pytest.raises(OSError, match=f"{form} is not a file: choose another path"):
        saved(tmp_path / form)


def rewritten(path: Path, change: Callable[[dict, dict], Any]) -> None:
    """Write a file with the same library, after a change of its arrays and index."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        index = json.loads(arrays.pop("checkpoint.json").tobytes())
        text = change(arrays, index) or json.dumps(index)
        arrays["checkpoint.json"] = np.frombuffer(text.encode(), np.uint8)
        np.savez(path, **arrays)
        with zipfile.ZipFile(path, "a") as file:
            file.comment = seal.EMPTY
    elif path.suffix == ".safetensors":
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            index = json.loads(file.metadata()["checkpoint.json"])
        arrays["seal"] = np.frombuffer(seal.EMPTY, np.uint8)
        text = change(arrays, index) or json.dumps(index)
        metadata = {"checkpoint.json": text}
        safetensors.numpy.save_file(arrays, path, metadata=metadata)
    else:
        content = flax.serialization.msgpack_restore(path.read_bytes())
        index = json.loads(content["checkpoint.json"])
        text = change(content["arrays"], index) or json.dumps(index)
        content |= {"checkpoint.json": text, "seal": seal.EMPTY.decode()}
        path.write_bytes(flax.serialization.msgpack_serialize(content))
    seal.seal_file(path)


def set_entry(**changes: Any) -> Callable[[dict, dict], None]:
    return lambda _, index: index["entries"]["params/a"].update(changes)


def without(key: str) -> Callable[[dict, dict], None]:
    return lambda _, index: index.pop(key)


def replaced(text: str) -> Callable[[dict, dict], str]:
    return lambda *_: text


HOSTILE = {
    "a list": (replaced("[]"), "its index does not have the right form"),
    "not JSON": (replaced("{"), "its index does not have the right form"),
    "nested": (replaced("[" * 100_000), "its index does not have the right form"),
    "no entries": (
        lambda _, index: index.pop("entries") and None,
        r"not have the right form \(KeyError: 'entries'\)",
    ),
    "no step": (
        lambda _, index: index.pop("step") and None,
        r"not have the right form \(KeyError: 'step'\)",
    ),
    "no checksum": (
        lambda _, index: index["entries"]["params/a"].pop("checksum") and None,
        r"not have the right form \(KeyError: 'checksum'\)",
    ),
    "a later version": (
        lambda _, index: index.update(version=2),
        "has version 2, and this jopt reads version 1: update jopt",
    ),
    "a dtype that does not exist": (set_entry(dtype="float7"), "not have the right fo"),
    "objects": (set_entry(dtype="object"), "params/a has the dtype 'object'"),
    "a negative shape": (set_entry(shape=[-2, -3]), r"params/a has the shape \[-2, -3"),
    "a text as a shape": (set_entry(shape="23"), "params/a has the shape '23'"),
    "a key without numbers": (
        lambda _, index: index.update(rng={"dropout": None}),
        "not have the right form .*rng/dropout",
    ),
    "a huge shape": (
        set_entry(shape=[10**9, 10**9]),
        r"params/a is .*\[2, 3\] in the file and .*\[1000000000, 1000000000\] in its",
    ),
    "an array that is not there": (
        lambda arrays, _: arrays.pop("params/a") is None,
        "params/a",
    ),
    "an array of another shape": (
        lambda arrays, _: arrays.update({"params/a": np.zeros(5, np.float32)}),
        r"params/a is .*\[5\] in the file and .*\[2, 3\] in its index",
    ),
    "an array of another dtype": (
        lambda arrays, _: arrays.update({"params/a": np.zeros((2, 3), np.int32)}),
        r"params/a is .*\[2, 3\] in the file and .*\[2, 3\] in its index",
    ),
}


@each_form
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_not_as_jopt_writes_it_is_one_clear_error(
    tmp_path: Path, form: str, kind: str
) -> None:
    change, message = HOSTILE[kind]
    path = saved(tmp_path / form)
    rewritten(path, lambda arrays, index: change(arrays, index) or None)
    params = PARAMS
    if kind == "a huge shape":
        params = PARAMS | {"a": jax.ShapeDtypeStruct((10**9, 10**9), jnp.float32)}
    with pytest.raises(ValueError, match=message) as error:
        restore(path, params=params)
    assert str(path) in str(error.value)


@each_form
def test_what_is_not_in_the_index_is_not_read(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / form)
    rewritten(path, lambda arrays, _: arrays.update(more=np.zeros(20 * MIB, np.uint8)))
    assert largest(lambda: restore(path, params=PARAMS, tx=TX)) < 12


@each_form
def test_shapes_are_compared_before_data_are_read(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / form)
    monkeypatch.setattr(files, "_aligned", None)  # where data are read to
    with pytest.raises(ValueError, match=r"params/a is float32\[7\], was saved as"):
        restore(path, params=PARAMS | {"a": jnp.ones(7)}, tx=TX)


@pytest.mark.parametrize("form", ["run.npz", "run.msgpack"])
def test_data_that_are_too_few_for_their_shape_are_refused_before_they_are_read(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def larger(data: bytes) -> bytes:
        for old in (b"[2, 3]", b"(2, 3)", b"\x92\x02\x03"):
            data = data.replace(old, old.replace(b"2", b"9").replace(b"\x02", b"\x09"))
        return data

    path = saved(tmp_path / form)
    if form == "run.npz":
        with zipfile.ZipFile(path) as file:
            members = {name: larger(file.read(name)) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
            file.comment = seal.EMPTY
    else:
        path.write_bytes(larger(path.read_bytes()))
    seal.seal_file(path)
    monkeypatch.setattr(files, "_aligned", None)  # where data are read to
    with pytest.raises(ValueError, match=r"24 bytes of data for .*9, 3"):
        restore(path, params=PARAMS | {"a": jnp.ones((9, 3))})


def test_an_array_of_which_a_part_is_missing_is_not_filled_with_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msgpack_file, "CHUNK", 100_000)
    params = {"w": jnp.ones(40_000)}
    path = saved(tmp_path / "run.msgpack", params)
    content = msgpack.unpackb(path.read_bytes())
    assert content["arrays"]["params/w"]["chunks"].popitem()[0] == "1"
    content["seal"] = seal.EMPTY.decode()
    path.write_bytes(msgpack.packb(content))
    seal.seal_file(path)
    with pytest.raises(ValueError, match="params/w has too few bytes"):
        restore(path, params=params)


@pytest.mark.parametrize("cut", [1, len(seal.MARK) - 1])
def test_a_mark_across_two_blocks_is_found(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "file"
    after = seal.BLOCK + cut - len(seal.EMPTY)
    path.write_bytes(b"before" + seal.EMPTY + after * b"x")
    seal.seal_file(path)
    with path.open("rb") as file:
        seal.check(path, file)
    assert seal.EMPTY not in path.read_bytes()


@each_form
def test_damage_is_reported_and_not_what_follows_from_it(
    tmp_path: Path, form: str
) -> None:
    path = saved(tmp_path / form)
    data = bytearray(path.read_bytes())
    data[data.index(np.asarray(PARAMS["a"]).tobytes()) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged .*do not match its checksum"):
        restore(path, params=PARAMS | {"a": jnp.ones(7)})


def test_compressed_arrays_are_refused(tmp_path: Path) -> None:
    """A small file could fill the memory."""
    path = saved(tmp_path / "run.npz")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = seal.EMPTY
    seal.seal_file(path)
    with pytest.raises(ValueError, match=r"checkpoint\.json is compressed"):
        restore(path, params=PARAMS)


@pytest.mark.parametrize("text", ["[]", '{"version": 1}', "[" * 100_000])
def test_an_odd_index_in_a_folder_is_the_same_error(tmp_path: Path, text: str) -> None:
    checkpointer = Checkpointer(tmp_path)
    path = checkpointer.save(1, params=PARAMS, opt_state=TX.init(PARAMS), value=1.0)
    index = path / "checkpoint.json"
    odd = json.loads(text) if len(text) < 99 else {}
    data = seal.json_bytes(odd) if isinstance(odd, dict) else b""
    index.write_bytes(data or seal.seal(f'["{seal.EMPTY.decode()}"]'.encode()))
    with pytest.raises(ValueError, match="its index does not have the right form"):
        restore(path, params=PARAMS)
    with pytest.warns(UserWarning, match="its index does not have the right form"):
        assert checkpointer.best is None
