"""Where a checkpoint can be: odd characters, links, addresses, names of arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.checkpoint import Checkpointer, folders, places, restore, save


TX = jopt.sgd(0.1, momentum=0.9)
FORMS = ["run", "run.npz", "run.safetensors", "run.msgpack"]
each_form = pytest.mark.parametrize("form", FORMS)
# Hydra names its folders ``lr=[0.1]``. Patterns, addresses, escapes, not Unicode.
ODD = ["lr=[0.1]", "*", "?x", "100%", "%5B", "#1", "a\\b", "a:b", "{a}", "a b", "\n"]
ODD += ["\udcff", "\u03b1", "~", "$HOME", "-r"]


def saved(path: Path, params: Any = None) -> Any:
    params = {"w": jnp.arange(3.0)} if params is None else params
    save(path, params=params, opt_state=TX.init(params), tx=TX)
    return params


def assert_restores(path: Path, params: Any) -> None:
    found = restore(path, params=params, tx=TX)
    for name, x in params.items():
        np.testing.assert_array_equal(found.params[name], x)


@each_form
@pytest.mark.parametrize("name", ODD)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str, form: str) -> None:
    """Its neighbours are what a pattern in its name would find."""
    (tmp_path / "lr=0").mkdir()
    path = tmp_path / name / form
    params = saved(path)
    assert os.listdir(path.parent) == [form]
    assert_restores(path, params)
    moved = tmp_path / "plain"
    path.parent.rename(moved)
    assert_restores(moved / form, params)
    moved.rename(tmp_path / name)
    assert_restores(path, params)


def test_the_folder_of_a_checkpoint_and_of_a_run_may_have_any_name(
    tmp_path: Path,
) -> None:
    for name in ODD:
        if not Path(name).suffix:
            assert_restores(tmp_path / name, saved(tmp_path / name))
    run = tmp_path / "lr=[0.1]" / "run"
    params = {"w": jnp.arange(3.0)}
    given = {"params": params, "opt_state": TX.init(params), "tx": TX}
    with Checkpointer(run, asynchronous=True, keep=1) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, **given)
    assert checkpointer.steps == [2]
    assert checkpointer.restore(params=params, tx=TX).step == 2


# The loop in which orbax looked for the arrays is closed before tensorstore's answer.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_orbax_cannot_read_back_does_not_become_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a path that no other test knows: orbax writes, and finds nothing."""
    monkeypatch.setattr(folders, "plain", places.contextlib.nullcontext)
    path = tmp_path / "lr=[0.1]" / "run"
    with pytest.raises(OSError, match=r"run was not written: orbax cannot read \['"):
        saved(path)
    assert not path.exists()


NAMES = [
    "a\0b",
    "a/b",
    "a" * 300,
    "a[0]",
    "%",
    "*",
    "a.npy",
    "..",
    "",
    "seal",
    "\u03b1",
]


@each_form
@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_may_have_any_name_that_the_format_can_hold(
    tmp_path: Path, form: str, name: str
) -> None:
    params = {name: jnp.arange(3.0), "other": jnp.ones(2)}
    if form == "run.npz" and "\0" in name:
        with pytest.raises(
            ValueError, match=r"npz cannot hold the name .*a\\x00b', wh"
        ):
            saved(tmp_path / form, params)
        assert not os.listdir(tmp_path)
    else:
        saved(tmp_path / form, params)
        assert_restores(tmp_path / form, params)


@each_form
def test_a_name_that_is_not_unicode_is_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(ValueError, match=r"name 'params/\\udcff' is not valid Unicode"):
        saved(tmp_path / form, {"\udcff": jnp.ones(2)})
    assert not os.listdir(tmp_path)


@each_form
def test_a_link_stays_and_what_it_points_to_is_written(
    tmp_path: Path, form: str
) -> None:
    link, goal = tmp_path / form, tmp_path / "elsewhere" / form
    link.symlink_to(goal)
    for times in range(2):
        if times and not link.suffix:
            with pytest.raises(FileExistsError, match="already a checkpoint"):
                saved(link)
        else:
            params = saved(link)
        assert link.is_symlink() and not goal.is_symlink()
        assert_restores(goal, params)
        assert_restores(link, params)
    assert os.listdir(goal.parent) == [form]


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://b/run.npz", "file:///x"])
def test_an_address_is_refused_before_a_folder_of_its_name_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (address, Path(address)):
        with pytest.raises(ValueError, match="path must be in a local or mounted file"):
            save(path, params={}, opt_state={})
        with pytest.raises(ValueError, match="path must be in a local or mounted file"):
            restore(path, params={})
        with pytest.raises(ValueError, match="directory must be in a local or mounted"):
            Checkpointer(path)
    with pytest.raises(
        ValueError, match=r"path must not contain NUL, got path='a\\x00"
    ):
        save("a\0b", params={}, opt_state={})
    assert not os.listdir(tmp_path)
    assert_restores(tmp_path / "gs:" / "run", saved(Path("./gs:/run").absolute()))


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_folder_with_the_name_of_a_file_is_named(tmp_path: Path, form: str) -> None:
    (tmp_path / form).mkdir()
    with pytest.raises(IsADirectoryError, match=f"{form} is a folder, and a path with"):
        saved(tmp_path / form)
    assert os.listdir(tmp_path) == [form]
