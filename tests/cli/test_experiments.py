"""``jopt describe``, ``plot-schedule`` and ``check``."""

import json
import re
import struct

import jax.numpy as jnp
import pytest

import jopt
from jopt.cli.shapes import parameters
from tests.cli.run import data, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that describe parameters and optimizers, and a module."""
    folder = tmp_path_factory.mktemp("files")
    shapes = {
        "dense": {
            "kernel": [3, 4],
            "bias": {"shape": [4], "dtype": "bfloat16"},
        }
    }
    (folder / "shapes.json").write_text(json.dumps(shapes))
    (folder / "tx.yaml").write_text("adamw:\n  learning_rate: 3e-4\n  mask: kernel$\n")
    tx = jopt.adamw(3e-4, mask="kernel$")
    (folder / "tx.json").write_text(json.dumps(jopt.to_config(tx)))
    tensors = {
        "layers.0.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "layers.0.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
    }
    text = json.dumps(tensors).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(28))
    params = {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    state = tx.init(params)
    jopt.checkpoint.save(folder / "a.npz", params=params, opt_state=state, tx=tx)
    (folder / "own_optimizers.py").write_text(
        "import jopt\n"
        "clip = jopt.clip(1.0)\n"
        "raises = (lambda p: None, lambda g, state, p=None: (g.nothing, state))\n"
    )
    (folder / "own_broken.py").write_text("x = 1\nraise RuntimeError('no')\n")
    return folder


# describe


@pytest.mark.parametrize(
    "arguments",
    [
        "'adamw(3e-4, mask=\"kernel$\")' --params {}/shapes.json",
        "{}/tx.yaml --params {}/shapes.json",
        "{}/tx.json --params {}/a.npz",
        "{}/a.npz",
    ],
)
def test_describe_takes_calls_configs_and_checkpoints(folder, arguments):
    found = data(f"describe {arguments.replace('{}', str(folder))}")
    assert found["optimizer"].startswith("adamw(learning_rate=0.0003")
    decays = {x["path"]: x["weight_decay"] is not None for x in found["leaves"]}
    assert decays == {"dense/bias": False, "dense/kernel": True}


def test_describe_writes_the_tables_of_the_description(folder):
    text = run(f"describe 'adamw(1e-3)' --params {folder}/model.safetensors").stdout
    assert "m <- b1 m + (1 - b1) g" in text
    assert re.search(r"^layers/0/weight +f32\[2,3\]", text, re.M)


def test_parameters_of_every_form_are_a_tree(folder):
    tree = parameters(folder / "model.safetensors")
    assert tree["layers"]["0"]["bias"].dtype == jnp.bfloat16
    assert tree["layers"]["0"]["weight"].shape == (2, 3)
    assert parameters(folder / "a.npz")["dense"]["kernel"].shape == (3, 4)
    assert parameters(folder / "shapes.json")["dense"]["bias"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[3", "has no shapes: Expecting"),
        ("{}", "has no shapes: the file has {}"),
        ('{"a": {"b": 3}}', "has no shapes: a/b has 3"),
        ('{"a": [-1]}', r"has no shapes: a has the shape \[-1\]"),
        ('{"a": {"shape": [1], "dtype": "real"}}', "a has the dtype 'real'"),
    ],
)
def test_shapes_that_are_wrong_are_a_message(tmp_path, content, message):
    path = tmp_path / "shapes.json"
    path.write_text(content)
    result = run(f"describe 'sgd(0.1)' --params {path}", 1)
    assert (
        re.search(message, result.stderr) and "It may be a checkpoint" in result.stderr
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("describe 'sgd(0.1)'", "--params is missing"),
        ("describe 'sgd(0.1)' --params nothing.json", "there is no file nothing.json"),
        ("describe 'sgd(0.1)' --params pyproject.toml", "pyproject.toml has no param"),
        ("describe 'sdg(0.1)' --params {}/shapes.json", "Did you mean 'sgd'"),
        ("describe 'sgd(b1=0.1)' --params {}/shapes.json", "sgd has no argument 'b1'"),
        ("describe 'sgd(-1)' --params {}/shapes.json", "learning_rate must be"),
        ("describe 'open(\"x\")' --params {}/shapes.json", "no factory 'open'"),
        ("describe '1 + 1' --params {}/shapes.json", "does not run code"),
        ("plot-schedule 'cosine_decay_schedule(1, 10)'", "--out is missing"),
        ("plot-schedule 'sgd(0.1)' -o x.png", "is not a schedule, but sgd("),
        ("plot-schedule 'cosine_decay(1, 10)' -o x.png", "Did you mean"),
        ("plot-schedule 'cosine_decay_schedule(1, 10)' -o x.xyz", "'xyz' is not supp"),
        ("check nothing_there:x", "nothing_there cannot be imported: ModuleNotFound"),
        ("check own_broken:x", "RuntimeError: no (own_broken.py, line 2)"),
        ("check own_optimizers:clipp", "has no 'clipp'. Did you mean 'clip'?"),
        ("check 'sdg(0.1)'", "Did you mean 'sgd'"),
    ],
)
def test_a_wrong_argument_is_status_2_and_a_message(
    folder, monkeypatch, command, message
):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    (folder / "pyproject.toml").touch()
    result = run(command.replace("{}", str(folder)), 2)
    assert result.stdout == "" and message in result.stderr, result.stderr
    assert not (folder / "x.xyz").exists()


# plot-schedule


def test_plot_schedule_draws_and_writes_the_values(tmp_path):
    path = tmp_path / "s.png"
    calls = "'linear_schedule(1.0, 0.0, 4)' 'cosine_decay_schedule(1.0, 8)'"
    found = data(f"plot-schedule {calls} -o {path}")
    assert path.read_bytes().startswith(b"\x89PNG")
    line, cosine = found
    assert line["schedule"].startswith("linear_schedule(init_value=1.0")
    assert cosine["steps"][0] == 0 and cosine["steps"][-1] == 8
    assert cosine["values"][0] == 1 and cosine["values"][-1] == pytest.approx(0)
    assert line["values"][line["steps"].index(2)] == 0.5


# check


def test_check_tests_laws_for_what_a_module_has(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    text = run("check own_optimizers:clip --only '*jit*'").stdout
    assert text.startswith("clip(max_delta=1.0): 1 law holds\n")
    found = data("check own_optimizers:raises --only '*jit*'", 1)
    assert not found["ok"]
    assert "has no attribute 'nothing'" in found["results"][0]["message"]
