"""Two programs that save to one place, and what an unfinished save leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from jopt.checkpoint import Checkpointer, restore, save, seal, unfinished
from jopt.checkpoint.unfinished import Unfinished
from tests.tools import two_programs
from tests.tools.two_programs import TX


PARAMS = {"w": jnp.arange(3.0)}
GIVEN = {"params": PARAMS, "opt_state": TX.init(PARAMS), "tx": TX}
FORMS = ["run", "run.npz", "run.safetensors", "run.msgpack"]
each_form = pytest.mark.parametrize("form", FORMS)


# Two programs.


@pytest.mark.parametrize("form", ["", ".npz", "steps"])
def test_two_programs_may_save_to_one_path(tmp_path: Path, form: str) -> None:
    """One of two folders stays, and the last of two files."""
    rounds = two_programs.results(tmp_path, form, 8)
    clear = ("another program has written to", "already a checkpoint", "step must be >")
    for step, pair in enumerate(rounds):
        assert pair.count("saved") == (2 if form == ".npz" else 1), pair
        for text in pair:
            assert text == "saved" or any(words in text for words in clear), text
        if form != "steps":
            found = restore(tmp_path / f"{step}{form}", params=PARAMS, tx=TX)
            assert (found.params["w"] == PARAMS["w"]).all()
    if form == "steps":
        checkpointer = Checkpointer(tmp_path)
        assert checkpointer.steps == [0, 5, 6, 7]
        for step in checkpointer.steps:
            checkpointer.restore(step, params=PARAMS, tx=TX)
    assert not list(tmp_path.glob(".jopt-*"))


# A power failure.


def content(path: Path) -> Any:
    """The bytes of a file, or the names in a folder."""
    return path.read_bytes() if path.is_file() else sorted(os.listdir(path))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names open files")
@pytest.mark.parametrize("form", [*FORMS, "1"])
def test_everything_is_on_disk_before_it_becomes_visible_and_then_its_name(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded is what files and folders hold when they are flushed."""
    on_disk: dict[Path, Any] = {}
    visible: list[dict[Path, Any]] = []
    fsync, replace, goal = os.fsync, os.replace, tmp_path / form

    def flush(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        on_disk[path] = content(path)
        fsync(file)

    def rename(old: Any, new: Any) -> None:
        if new == goal:
            all_of_it = [old, *old.rglob("*")]
            assert {path: on_disk.get(path) for path in all_of_it} == {
                path: content(path) for path in all_of_it
            }
            visible.append(dict(on_disk))
            on_disk.clear()
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    if form == "1":
        Checkpointer(tmp_path).save(1, **GIVEN)
    else:
        save(goal, **GIVEN)
    assert len(visible) == 1
    assert form in on_disk[tmp_path]


# What a save leaves.


@each_form
def test_a_save_that_fails_leaves_nothing(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any) -> None:
        path.touch()
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(seal, "write", full)
        patch.setattr(seal, "seal_file", full)
        with pytest.raises(OSError, match="no space left"):
            save(tmp_path / form, **GIVEN)
        assert not os.listdir(tmp_path)
    save(tmp_path / form, **GIVEN)
    assert os.listdir(tmp_path) == [form]


@each_form
def test_files_of_a_user_stay_whatever_their_names(tmp_path: Path, form: str) -> None:
    names = {f"{form}.partial", "1.partial", ".jopt-notes.partial", ".partial"}
    names |= {".jopt-0123456789abcdef.partial"}  # not empty, and without a lock
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    (tmp_path / "2.partial").touch()
    save(tmp_path / form, **GIVEN)
    Checkpointer(tmp_path).save(1, **GIVEN)
    Checkpointer(tmp_path, keep=1).save(2, **GIVEN)
    assert {*os.listdir(tmp_path)} == names | {form, "2", "2.partial"}
    assert all((tmp_path / name / "mine").exists() for name in names)


@each_form
def test_what_a_killed_program_left_goes_and_what_is_being_written_stays(
    tmp_path: Path, form: str
) -> None:
    running, killed = Unfinished(tmp_path), Unfinished(tmp_path)
    for place in (running, killed):
        place.path.write_text("half of a checkpoint")
    os.close(killed._lock)  # as the system does when a program ends
    (tmp_path / f".jopt-{'0' * 16}.partial").mkdir()  # killed before it had a lock
    save(tmp_path / form, **GIVEN)
    assert {*os.listdir(tmp_path)} == {form, running.path.parent.name}
    running.publish(tmp_path / "done")
    running.close()
    assert {*os.listdir(tmp_path)} == {form, "done"}


def test_a_program_that_is_killed_while_it_cleans_up_leaves_what_the_next_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Unfinished(tmp_path)
    place.path.mkdir()
    (place.path / "array").touch()

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            place.close()
    os.close(place._lock)
    assert place.path.exists()
    save(tmp_path / "run.npz", **GIVEN)
    assert os.listdir(tmp_path) == ["run.npz"]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def lock(file: int) -> bool | None:
        attempts.append(file)
        folder = next(tmp_path.glob("new/.jopt-*"))
        if len(attempts) == 1:  # another program holds the lock, and then removes all
            (folder / unfinished.LOCK).unlink()
            folder.rmdir()
            folder.parent.rmdir()
            return False
        if len(attempts) == 2:  # or it has removed all before the lock was taken
            (folder / unfinished.LOCK).unlink()
            return True
        return None  # a file system without locks

    monkeypatch.setattr(unfinished, "_lock", lock)
    with Unfinished(tmp_path / "new") as place:
        assert len(attempts) == 3
        place.path.touch()
    assert not os.listdir(tmp_path / "new")


@each_form
@pytest.mark.parametrize("length", [248, 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(
    tmp_path: Path, form: str, length: int
) -> None:
    path = tmp_path / form.replace("run", "x" * (length - len(form) + 3))
    assert len(path.name) == length
    save(path, **GIVEN)
    restore(path, params=PARAMS, tx=TX)
    with pytest.raises(OSError, match="File name too long"):
        save(path.with_name(f"{'x' * 256}{path.suffix}"), **GIVEN)
    assert os.listdir(tmp_path) == [path.name]
