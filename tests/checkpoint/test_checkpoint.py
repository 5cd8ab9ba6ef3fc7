"""Checkpoints: what comes back, what is refused, what is kept."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.checkpoint import (
    Checkpointer,
    checksum,
    folders,
    restore,
    safetensors_file,
    save,
    seal,
)
from jopt.testing.comparison import types


FORMS = ["run", "run.npz", "run.safetensors", "run.msgpack"]
each_form = pytest.mark.parametrize("form", FORMS)
TX = jopt.adamw(jopt.tunable(1e-3), nu_dtype="bfloat16")


def small() -> tuple[Any, Any]:
    """Parameters, and a state after a step whose numbers have many magnitudes."""
    rng = np.random.default_rng(0)
    params = {
        "dense": {"kernel": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)},
        "half": jnp.asarray(rng.normal(size=8), jnp.bfloat16),
        "none": None,
        "wave": jnp.asarray(rng.normal(size=3) + 1j, jnp.complex64),
        "empty": jnp.zeros((0, 2)),
        "number": jnp.float32(-0.0),
    }
    grads = jax.tree.map(lambda p: p * jnp.asarray(1e-6, p.dtype), params)
    _, state = TX.update(grads, TX.init(params), params)
    return params, state


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def assert_same(found: Any, expected: Any) -> None:
    assert types(found) == types(expected)
    assert bits(found) == bits(expected)


def written(path: Path, **more: Any) -> tuple[Any, Any]:
    params, state = small()
    save(path, params=params, opt_state=state, tx=TX, **more)
    return params, state


# What comes back.


@each_form
def test_all_comes_back_as_it_was(tmp_path: Path, form: str) -> None:
    metadata = {"loss": [0.1, 1e-300, None, True], "\u03b1": {"text": "\n"}}
    key = jax.random.key(3)
    keys = {"dropout": key, "old": jax.random.PRNGKey(1), "many": jax.random.split(key)}
    params, state = written(tmp_path / form, step=5, rng=keys, metadata=metadata)
    wanted = jax.eval_shape(lambda: params)
    found = restore(tmp_path / form, params=wanted, tx=TX)
    assert_same((found.params, found.opt_state), (params, state))
    assert not any(x.committed for x in jax.tree.leaves(found.opt_state))
    assert (found.step, found.metadata) == (5, metadata)
    assert jax.tree.map(lambda key: key.dtype, found.rng) == {
        name: key.dtype for name, key in keys.items()
    }
    draws = [jax.random.normal(r["dropout"], 3) for r in (found.rng, keys)]
    assert bits(draws[0]) == bits(draws[1])
    assert bits(jax.random.key_data(found.rng["many"])) == bits(
        jax.random.key_data(keys["many"])
    )


@each_form
def test_parameters_alone_can_be_restored(tmp_path: Path, form: str) -> None:
    params, _ = written(tmp_path / form, rng=jax.random.key(0))
    found = restore(tmp_path / form, params=params)
    assert_same(found.params, params)
    assert found.opt_state is found.step is found.metadata is None
    assert found.rng == jax.random.key(0)


@pytest.mark.parametrize("form", ["run", "run.npz"])
def test_keys_in_the_parameters_and_no_parameters_at_all(
    tmp_path: Path, form: str
) -> None:
    params = {"key": jax.random.key(7, impl="rbg")}
    save(tmp_path / form, params=params, opt_state={})
    for wanted in (params, jax.eval_shape(lambda: params)):
        assert restore(tmp_path / form, params=wanted).params == params
    tx = jopt.identity()
    save(tmp_path / f"no{form}", params={}, opt_state={}, tx=tx)
    assert restore(tmp_path / f"no{form}", params={}, tx=tx).params == {}


@pytest.mark.parametrize("form", ["run", "run.msgpack", "run.safetensors"])
@pytest.mark.parametrize(
    "dtype", ["int4", "uint4", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"]
)
def test_narrow_dtypes_come_back(tmp_path: Path, form: str, dtype: str) -> None:
    params = {"codes": jnp.arange(5).astype(dtype)}
    names = {"path": tmp_path / form, "params": params, "opt_state": {}}
    if form == "run.safetensors" and dtype not in safetensors_file.DTYPES:
        with pytest.raises(
            TypeError, match=f"no dtype {dtype}, the dtype of params/codes"
        ):
            save(**names)
    else:
        save(**names)
        assert_same(restore(names["path"], params=params).params, params)


def test_other_libraries_read_the_files(tmp_path: Path) -> None:
    params, _ = small()
    for form in ("run.npz", "run.msgpack", "run.safetensors"):
        written(tmp_path / form)
    name, kernel = "params/dense/kernel", np.asarray(params["dense"]["kernel"])
    with np.load(tmp_path / "run.npz") as arrays:
        np.testing.assert_array_equal(arrays[name], kernel)
    data = (tmp_path / "run.msgpack").read_bytes()
    found = flax.serialization.msgpack_restore(data)
    np.testing.assert_array_equal(found["arrays"][name], kernel)
    with safetensors.safe_open(tmp_path / "run.safetensors", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor(name), kernel)
        index = json.loads(file.metadata()["checkpoint.json"])
    assert index["schema"]["recipe"] == jopt.to_config(TX)


def test_the_same_run_gives_the_same_file(tmp_path: Path) -> None:
    for form in FORMS[1:]:
        written(tmp_path / form)
        first = (tmp_path / form).read_bytes()
        written(tmp_path / form)  # takes its place
        assert (tmp_path / form).read_bytes() == first
    assert not list(tmp_path.glob("*.partial"))


# Damage.


def damaged(file: Path) -> Iterator[bytes | None]:
    """Bytes that are not the file's: None for no file."""
    data = file.read_bytes()
    yield None
    yield data + b"\0"
    if data:
        yield data[:-1]
        yield data[: len(data) // 2]
        for at in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@each_form
def test_no_file_can_be_damaged_unnoticed(tmp_path: Path, form: str) -> None:
    params, _ = written(tmp_path / form)
    path = tmp_path / form
    inside = [file for file in path.rglob("*") if file.is_file()]
    assert len(inside) > 5 or path.suffix
    for file in inside or [path]:
        intact = file.read_bytes()
        for data in damaged(file):
            file.unlink()
            if data is not None:
                file.write_bytes(data)
            error = FileNotFoundError if data is None else ValueError
            expected = (error, ValueError) if inside else error
            with pytest.raises(expected, match=file.name):
                restore(path, params=params, tx=TX)
            file.write_bytes(intact)
    restore(path, params=params, tx=TX)


@pytest.mark.parametrize("form", FORMS[1:])
def test_no_byte_of_a_file_can_change_unnoticed(tmp_path: Path, form: str) -> None:
    written(tmp_path / form)
    data = bytearray((tmp_path / form).read_bytes())
    seal.check(tmp_path / form, io.BytesIO(data))
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="is damaged"):
            seal.check(tmp_path / form, io.BytesIO(data))
        data[at] ^= 1 << at % 8


def test_each_array_has_a_checksum_besides(tmp_path: Path) -> None:
    """As if memory, not the file, had lost a bit before the file was written."""
    path = tmp_path / "run.msgpack"
    params, state = written(path)
    name = "opt_state/scale_by_adam/mu/dense/kernel"
    right = np.asarray(state["scale_by_adam"].mu["dense"]["kernel"])
    wrong = right.copy()
    wrong.view(np.uint32)[3, 2] ^= 1 << 20
    data = path.read_bytes()
    assert data.count(right.tobytes()) == 1
    path.write_bytes(data.replace(right.tobytes(), wrong.tobytes()))
    seal.seal_file(path)
    with pytest.raises(ValueError, match=f"damaged: the bits of {name} differ"):
        restore(path, params=params, tx=TX)
    restore(path, params=params)  # these are whole


def mixed(h: int) -> int:
    """The finalizer of MurmurHash3, from its source (Appleby, 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> shift)) * factor % 2**32
    return h


def test_the_checksum_is_what_a_loop_over_the_words_gives() -> None:
    words = np.random.default_rng(0).integers(2**32, size=(3, 4), dtype=np.uint32)
    sums = [0, 0]
    for (i, j), word in np.ndenumerate(words):
        place = mixed((mixed(i) + j) % 2**32)
        for n, seed in enumerate((0x9E3779B9, 0x7F4A7C15)):
            sums[n] += mixed(int(word) ^ mixed((place + seed) % 2**32))
    expected = "".join(f"{n % 2**32:08x}" for n in sums)
    swapped = words.copy()
    swapped[0, [1, 2]] = words[0, [2, 1]]
    arrays = {
        "words": words,
        "floats": words.view(np.float32),  # NaNs too
        "complex": words.view(np.complex64),
        "turned": words.T,
        "flat": words.ravel(),
        "swapped": swapped,
        **{
            f"bit {i}": words ^ np.uint32(1 << i) * (words == words[1, 1])
            for i in range(32)
        },
    }
    found = checksum.checksums(arrays)
    assert found["words"] == found["floats"] == expected
    assert len(set(found.values())) == len(arrays) - 1
    for where in meshes().values():
        spread = jax.device_put(np.arange(64.0, dtype=np.float32).reshape(8, 8), where)
        assert checksum.checksums({"": spread}) == {"": "2bb9874d537190b0"}


# What is refused.


@each_form
def test_parameters_that_do_not_fit_are_all_listed(tmp_path: Path, form: str) -> None:
    params, _ = written(tmp_path / form)
    wanted = dict(
        params,
        dense={"weight": jnp.zeros((8, 4))},
        half=jnp.zeros(8),
        wave=jnp.zeros(4, jnp.complex64),
    )
    with pytest.raises(ValueError) as error:
        restore(tmp_path / form, params=wanted, tx=TX)
    assert str(error.value).splitlines()[1:] == [
        "  params/dense/kernel is only in the checkpoint",
        "  params/dense/weight is not in the checkpoint",
        "  params/half is float32[8], was saved as bfloat16[8]",
        "  params/wave is complex64[4], was saved as complex64[3]",
        "Did you mean migrate=[jopt.Cast('^params/half$', 'float32'), "
        "jopt.Reset(pattern='/wave$')]?",
        "With jopt.Reset a parameter keeps the value it has in params.",
        "With strict=False, missing parameters keep the values they have in params and "
        "unexpected ones are ignored. To do so for single ones, use jopt.Rename, "
        "jopt.Reset and jopt.Drop in migrate.",
    ]


def test_another_recipe_is_told_and_may_be_allowed(tmp_path: Path) -> None:
    params, state = written(tmp_path / "run")
    path = tmp_path / "run"
    other = jopt.chain(TX, jopt.params_ema(0.9))
    with pytest.raises(ValueError, match="params_ema"):
        restore(path, params=params, tx=other)
    with pytest.warns(UserWarning, match="params_ema"):
        found = restore(path, params=params, tx=other, strict=False).opt_state
    assert_same(found["scale_by_adam"], state["scale_by_adam"])
    wide = jopt.adamw(jopt.tunable(1e-3))
    with pytest.raises(ValueError, match="nu/dense/kernel' is bfloat16, not float32"):
        restore(path, params=params, tx=wide)
    rule = jopt.Cast("/nu/", "float32")
    restore(path, params=params, tx=wide, migrate=[rule])
    faster = jopt.adamw(jopt.tunable(2e-3), nu_dtype="bfloat16")
    for whose, rate in (("checkpoint", 1e-3), ("recipe", 2e-3)):
        with pytest.warns(UserWarning, match="0.001 in the checkpoint, 0.002 in the"):
            found = restore(path, params=params, tx=faster, hyperparams=whose)
        assert jopt.hyperparams(found.opt_state)["learning_rate"] == np.float32(rate)


def test_what_cannot_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    params, state = small()

    def refuses(error: type[Exception], match: str, **changes: Any) -> None:
        given = {"path": tmp_path / "run", "params": params, "opt_state": state}
        with pytest.raises(error, match=match):
            save(**(given | changes))
        assert not list(tmp_path.iterdir())

    refuses(ValueError, r"one of .npz, .safetensors, .msgpack, got", path="a.ckpt")
    refuses(
        TypeError,
        r"metadata\['x'\]\[1\] must be .* type float32",
        metadata={"x": [1, np.float32(2)]},
    )
    refuses(TypeError, "metadata must have strings as keys, got 3", metadata={3: 4})
    refuses(TypeError, r"metadata must be .* got \(1,\) of type tuple", metadata=(1,))
    refuses(TypeError, "rng must be a random key or a dict", rng=3)
    refuses(TypeError, "step must be a whole number, got step=2.5", step=2.5)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone"):
        restore(tmp_path / "gone", params=params)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone\.npz"):
        restore(tmp_path / "gone.npz", params=params)
    written(tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"there is already a checkpoint .*run:"):
        written(tmp_path / "run")


# Where arrays go.


def meshes() -> dict[str, Any]:
    devices = np.array(jax.devices())
    return {
        "one": SingleDeviceSharding(devices[1]),
        "rows": NamedSharding(jax.make_mesh((8,), ("a",)), P("a")),
        "grid": NamedSharding(jax.make_mesh((2, 4), ("a", "b")), P("b", "a")),
    }


@pytest.mark.parametrize("form", ["run", "run.npz"])
def test_any_mesh_restores_onto_any_other_and_all_can_be_donated(
    tmp_path: Path, form: str
) -> None:
    tx = jopt.adam(1e-3)
    values = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    places = meshes()
    step = jax.jit(
        lambda p, s: (jax.tree.map(lambda x: x + 1, p), tx.update(p, s, p)[1]),
        donate_argnums=(0, 1),
    )
    for origin, where in places.items():
        params = {"w": jax.device_put(values, where)}
        state = jax.jit(tx.init)(params)
        path = tmp_path / origin / form
        save(path, params=params, opt_state=state, tx=tx)
        for goal in places.values():
            wanted = {"w": jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=goal)}
            found = restore(path, params=wanted, tx=tx)
            np.testing.assert_array_equal(found.params["w"], values)
            expected = jax.jit(tx.init)({"w": jax.device_put(values, goal)})
            leaves = jax.tree.leaves(found[:2])
            for x, like in zip(
                leaves, [found.params["w"], *jax.tree.leaves(expected)], strict=True
            ):
                assert x.sharding.is_equivalent_to(like.sharding, x.ndim)
            assert found.params["w"].sharding.is_equivalent_to(goal, 2)
            before = addresses(found[:2])
            after = addresses(step(*found[:2]))
            assert all(x.is_deleted() for x in leaves)
            assert after == before


def addresses(tree: Any) -> set[int]:
    """Where every shard of every array with elements by the dozen is in memory."""
    return {
        shard.data.unsafe_buffer_pointer()
        for x in jax.tree.leaves(tree)
        if x.ndim
        for shard in x.addressable_shards
    }


def test_shardings_may_be_part_of_the_types(tmp_path: Path) -> None:
    axes = (AxisType.Explicit,) * 2
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=axes)
    tx = jopt.adam(1e-3)

    def init() -> Any:
        return {"w": jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, P("b", "a")))}

    with jax.set_mesh(mesh):
        params = init()
        wanted = jax.eval_shape(init)  # whose mesh has no devices
        save(tmp_path / "run", params=params, opt_state=tx.init(params), tx=tx)
        found = restore(tmp_path / "run", params=wanted, tx=tx)
    mu = found.opt_state["scale_by_adam"].mu["w"]
    assert mu.sharding == found.params["w"].sharding == params["w"].sharding
    with pytest.raises(ValueError, match="which names no devices: call this under jax"):
        restore(tmp_path / "run", params=wanted, tx=tx)


# The checkpoints of a run.


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    params, state = small()
    checkpointer = Checkpointer(tmp_path / "run", keep=2, keep_best=2)
    assert checkpointer.latest is checkpointer.best is None
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .* steps \[\]"):
        checkpointer.restore(params=params)
    given = {"params": params, "opt_state": state, "tx": TX}
    values = {0: 5.0, 3: 1.0, 4: float("nan"), 7: 0.5, 9: None, 12: 2.0, 13: 9.0}
    for step, value in values.items():
        checkpointer.save(step, **given, value=value)
    assert checkpointer.steps == [3, 7, 12, 13]
    assert (checkpointer.latest, checkpointer.best) == (13, 7)
    assert repr(checkpointer).endswith("run', steps=[3, 7, 12, 13])")
    for wanted, step in ((None, 13), ("best", 7), (3, 3)):
        assert checkpointer.restore(wanted, params=params, tx=TX).step == step
    with pytest.raises(FileNotFoundError, match=r"of step 9 in .*\[3, 7, 12, 13\]"):
        checkpointer.restore(9, params=params)
    with pytest.raises(ValueError, match=r"step must be > 13.* got step=13"):
        checkpointer.save(13, **given)
    for wrong in ({"keep": 0}, {"keep_best": -1}, {"keep": 1.5}, {"asynchronous": 1}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            Checkpointer(tmp_path, **wrong)


def test_a_save_in_the_background_is_waited_for_and_never_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is slow, and the arrays are donated as soon as save returns."""
    started, write = threading.Event(), seal.write

    def slowly(*args: Any) -> None:
        started.set()
        time.sleep(0.2)
        write(*args)

    monkeypatch.setattr(seal, "write", slowly)
    tx = jopt.sgd(0.1, momentum=0.9)
    params = {"w": jnp.zeros(100_000)}
    state = tx.init(params)
    step = jax.jit(
        lambda t: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), t), donate_argnums=0
    )
    with Checkpointer(tmp_path / "run", asynchronous=True) as checkpointer:
        for t in range(1, 5):
            params = step(params)
            checkpointer.save(t, params=params, opt_state=state, tx=tx)
        assert started.wait(10) and checkpointer.latest == 3
        params = step(step(params))
    assert checkpointer.steps == [1, 2, 3, 4]
    for t in checkpointer.steps:
        found = checkpointer.restore(t, params=params, tx=tx).params["w"]
        assert (found == t).all()


def test_what_goes_wrong_in_the_background_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, state = small()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    checkpointer = Checkpointer(tmp_path / "run", asynchronous=True)
    given = {"params": params, "opt_state": state}
    with monkeypatch.context() as patch:
        patch.setattr(seal, "write", full)
        checkpointer.save(1, **given)
        with pytest.raises(OSError, match="no space left"):
            checkpointer.close()
    assert checkpointer.steps == []
    checkpointer.save(1, **given)  # what the first left behind does not matter
    checkpointer.wait()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["1"]


def test_a_program_that_ends_at_once_finishes_its_save(tmp_path: Path) -> None:
    code = (
        "import sys, jax.numpy as jnp, jopt; from jopt.checkpoint import Checkpointer\n"
        "params = {'w': jnp.ones(100_000)}; tx = jopt.sgd(0.1)\n"
        "Checkpointer(sys.argv[1], asynchronous=True).save(\n"
        "    1, params=params, opt_state=tx.init(params), tx=tx)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, tmp_path / "run"]
    subprocess.run(command, check=True, timeout=120)
    found = Checkpointer(tmp_path / "run").restore(params={"w": jnp.ones(100_000)})
    assert found.step == 1


def test_without_a_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "orbax", None)
    monkeypatch.setitem(sys.modules, "msgpack", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"orbax 0\.12\.8 or newer: pip install"):
        written(tmp_path / "run")
    for library in ("msgpack", "safetensors"):
        with pytest.raises(
            ImportError, match=rf"pip install {library}, or save as \.npz"
        ):
            written(tmp_path / f"run.{library}")
    assert not list(tmp_path.iterdir())


def test_the_index_can_be_read_by_people(tmp_path: Path) -> None:
    written(tmp_path / "run", step=5)
    index = json.loads((tmp_path / "run" / folders.INDEX).read_text())
    assert index["step"] == 5
    assert index["entries"]["params/half"]["dtype"] == "bfloat16"
    assert index["schema"]["recipe"] == jopt.to_config(TX)
