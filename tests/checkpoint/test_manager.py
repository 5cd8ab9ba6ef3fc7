"""A run's folder in which other things lie, or damaged checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import jopt
from jopt.checkpoint import Checkpointer, folders


TX = jopt.sgd(0.1)
PARAMS = {"w": jnp.arange(3.0)}
GIVEN = {"params": PARAMS, "opt_state": TX.init(PARAMS), "tx": TX}


def run(directory: Path, values: dict[int, float], **options: Any) -> Checkpointer:
    checkpointer = Checkpointer(directory, **options)
    for step, value in values.items():
        checkpointer.save(step, **GIVEN, value=value)
    return checkpointer


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "another bit": lambda path: flip(path / folders.INDEX),
    "an empty index": lambda path: (path / folders.INDEX).write_bytes(b""),
    "no index": lambda path: (path / folders.INDEX).unlink(),
    "JSON of others": lambda path: (path / folders.INDEX).write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_leaves_the_others_alone(
    tmp_path: Path, damage: Any
) -> None:
    checkpointer = run(tmp_path / "run", {1: 1.0, 2: 3.0, 3: 2.0, 4: 4.0})
    damage(tmp_path / "run" / "1")
    # Only "best" reads the indices of all.
    assert checkpointer.restore(params=PARAMS).step == 4
    assert checkpointer.restore(2, params=PARAMS).step == 2
    with pytest.warns(
        UserWarning, match=r"no value that can be read.*\n  .*run/1"
    ) as w:
        assert checkpointer.restore("best", params=PARAMS).step == 3
    assert len(w) == 1
    with pytest.raises((ValueError, OSError), match="run/1"):
        checkpointer.restore(1, params=PARAMS)
    # What was the best may be it: it stays, and the save is no failure.
    careful = Checkpointer(tmp_path / "run", keep=1, keep_best=1)
    with pytest.warns(UserWarning, match=r"are not removed:\n  .*run/1.*\nDelete them"):
        careful.save(5, **GIVEN, value=5.0)
    assert careful.steps == [1, 3, 5]
    plain = Checkpointer(tmp_path / "run", keep=1)
    plain.save(6, **GIVEN)  # which needs no index, and warns of none
    assert plain.steps == [6]


def test_other_folders_and_files_are_no_steps(tmp_path: Path) -> None:
    checkpointer = run(tmp_path, {7: 1.0, 8: 2.0}, keep=2, keep_best=1)
    for name in ("007", "\u0663", "\u00b2", "+9", "9_0", "-1", "1e3", "2024", "logs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    shutil.copytree(tmp_path / "8", tmp_path / "0009")
    (tmp_path / "99").write_text("a file")
    others = {path.name for path in tmp_path.iterdir()} - {"7", "8"}
    assert checkpointer.steps == [7, 8]
    assert checkpointer.restore(params=PARAMS).step == 8
    assert checkpointer.restore("best", params=PARAMS).step == 7
    for step in (9, 10, 11):
        checkpointer.save(step, **GIVEN, value=5.0)
    assert checkpointer.steps == [7, 10, 11]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == others | {"7", "10", "11"}
    with pytest.raises(FileExistsError, match=r"already something else at .*2024: cho"):
        checkpointer.save(2024, **GIVEN)


def test_an_old_checkpoint_that_cannot_be_removed_does_not_undo_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> None:
        raise PermissionError(f"not yours: {path}")

    checkpointer = run(tmp_path, {1: 0.0}, keep=1)
    monkeypatch.setattr(folders, "remove", refuses)
    with pytest.warns(UserWarning, match="could not be removed: not yours: .*/1"):
        checkpointer.save(2, **GIVEN)
    assert checkpointer.steps == [1, 2]


def test_a_step_that_is_neither_a_number_nor_best_is_refused(tmp_path: Path) -> None:
    checkpointer = run(tmp_path, {1: 0.0})
    with pytest.raises(ValueError, match="step must be one of 'best', got step='last'"):
        checkpointer.restore("last", params=PARAMS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="step must be a whole number, got step=True"):
        checkpointer.restore(True, params=PARAMS)
    assert checkpointer.restore(jnp.int32(1), params=PARAMS).step == 1
