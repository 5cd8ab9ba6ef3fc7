"""What holds for every command: help, errors, colours, pipes, and the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jopt
import jopt.cli
from tests.cli.run import run


ROOT = Path(__file__).parents[2]


def start(*arguments, module="jopt", **environment):
    """The command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_does_not_wait_for_jax():
    done = start("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("list", "show", "checkpoint"))
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded and "jopt.cli.app" in loaded
    assert not {"jax", "numpy", "matplotlib"} & loaded


def test_a_checkpoint_is_listed_without_jax(tmp_path):
    path = tmp_path / "a.npz"
    jopt.checkpoint.save(
        path, params={"w": jopt.tree.zeros_like({"w": 0.0})["w"]}, opt_state=None
    )
    done = start("checkpoint", "ls", str(path), COLUMNS="50")
    assert done.stdout.splitlines()[0] == str(path)[:50]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in loaded and "jax" not in loaded


def test_a_pipe_that_nobody_reads_is_no_error():
    command = [sys.executable, "-m", "jopt", "--version"]
    pipe, env = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait() in (0, 1)


def test_without_typer_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r'pip install "jopt\[cli\]"'):
        jopt.cli.main()


def test_version():
    assert run("--version").stdout == f"jopt {jopt.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "lsit",
        "--nonsense",
        "list --kind nonsense",
        "show",
        "show adam sgd",
        "checkpoint",
    ],
)
def test_wrong_usage_is_status_2(command):
    result = run(command, 2)
    assert result.stderr or command == "checkpoint"


def test_a_wrong_command_gets_a_suggestion():
    assert "Did you mean 'list'?" in run("lsit", 2).stderr


def test_the_width_is_that_of_the_terminal_and_a_file_gets_whole_lines():
    whole = run("list scale_by_adam").stdout.splitlines()
    folded = run("list scale_by_adam", COLUMNS="50").stdout.splitlines()
    assert max(map(len, folded)) <= 50 < max(map(len, whole))
    assert len(folded) > len(whole)


def test_no_color_means_no_colors():
    assert "\x1b" not in run("show clip").stdout
    # Bold is no colour.
    assert "\x1b[1m" in run("show clip", FORCE_COLOR="1").stdout
    assert "\x1b[3" not in run("show clip", FORCE_COLOR="1", NO_COLOR="1").stdout
