"""``jopt checkpoint``: ls, verify and diff."""

import json
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.checkpoint import seal
from tests.cli.run import data, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints of each form, the second with another bias, rate and step."""
    folder = tmp_path_factory.mktemp("checkpoints")
    one = {"dense": {"kernel": jnp.ones((3, 4), jnp.bfloat16), "bias": jnp.ones(4)}}
    other = {"dense": {**one["dense"], "bias": jnp.array([1.0, 1.0, 1.5, 1.0])}}
    txs = jopt.sgd(0.1), jopt.chain(jopt.clip(1.0), jopt.sgd(0.2, momentum=0.9))
    for name, params, tx, step in (("a", one, txs[0], 5), ("b", other, txs[1], 6)):
        for suffix in (".npz", ".safetensors", ".msgpack"):
            jopt.checkpoint.save(
                folder / f"{name}{suffix}",
                params=params,
                opt_state=tx.init(params),
                tx=tx,
                step=step,
                rng=jax.random.key(0),
                metadata={"epoch": 1},
            )
    with jopt.checkpoint.Checkpointer(folder / "run") as checkpointer:
        for step in (10, 100, 9000):
            state = txs[0].init(one)
            checkpointer.save(
                step, params=one, opt_state=state, tx=txs[0], value=1 / step
            )
    return folder


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.msgpack", "run/10"])
def test_ls_has_the_arrays_step_and_recipe_of_every_form(folder, name):
    found = data(f"checkpoint ls {folder / name}")
    arrays = {x["name"]: x for x in found["arrays"]}
    assert arrays["params/dense/kernel"] == {
        "name": "params/dense/kernel",
        "shape": [3, 4],
        "dtype": "bfloat16",
        "bytes": 24,
    }
    assert found["step"] == (10 if name == "run/10" else 5)
    assert jopt.from_config(found["recipe"]) == jopt.sgd(0.1)
    assert found["bytes"]["params"] == 40
    text = run(f"checkpoint ls {folder / name}").stdout
    assert "recipe: sgd(learning_rate=0.1)\n" in text
    assert "params/dense/kernel " in text and " 3 x 4 " in text


def test_ls_writes_a_recipe_as_the_call_that_makes_it(folder):
    text = run(f"checkpoint ls {folder}/b.npz").stdout
    recipe = text.partition("recipe: ")[2].partition("\n")[0]
    expected = jopt.chain(jopt.clip(1.0), jopt.sgd(0.2, momentum=0.9))
    assert jopt.from_config(recipe) == expected
    assert 'metadata: {"epoch": 1}\n' in text
    assert text.endswith("arrays; bytes: params 40, opt_state 72, rng 8\n"), text


RECIPES = [
    jopt.chain(a=jopt.clip(1.0), b=jopt.adamw(jopt.tunable(0.1), b1=0.5)),
    jopt.partition(
        {"x": jopt.sgd(0.1)}, jopt.rules((jopt.is_bias_or_norm, "x"), ("", "x"))
    ),
    jopt.adamw(jopt.piecewise_constant_schedule(0.1, {5: 0.5}), mask=("a", "b")),
]


@pytest.mark.parametrize("tx", RECIPES, ids=lambda tx: tx.recipe.name)
def test_the_text_of_a_recipe_can_be_read_back(tx):
    from jopt.cli.checkpoints import _text

    assert jopt.from_config(_text(jopt.to_config(tx))) == tx


def test_ls_of_a_run_has_its_checkpoints_in_order(folder):
    found = data(f"checkpoint ls {folder}/run")
    assert [x["step"] for x in found] == [10, 100, 9000]
    head, _, columns, *lines = run(f"checkpoint ls {folder}/run").stdout.splitlines()
    assert head == "recipe: sgd(learning_rate=0.1)"
    assert columns.split() == ["path", "step", "value", "arrays", "bytes"]
    assert [line.split()[1] for line in lines] == ["10", "100", "9,000"]


def test_ls_reads_the_safetensors_of_other_libraries(tmp_path):
    header = {
        "model.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "__metadata__": {"format": "pt"},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    found = data(f"checkpoint ls {path}")
    assert found["arrays"] == [
        {"name": "model.weight", "shape": [2, 3], "dtype": "float32", "bytes": 24}
    ]
    assert found["metadata"] == {"format": "pt"} and found["recipe"] is None
    assert "1 arrays; bytes: arrays 24" in run(f"checkpoint ls {path}").stdout


def test_verify_reads_every_byte(folder, tmp_path):
    paths = f"{folder}/a.npz {folder}/run"
    assert [x["whole"] for x in data(f"checkpoint verify {paths}")] == [True] * 4
    lines = run(f"checkpoint verify {paths}").stdout.splitlines()
    assert lines[0] == f"{folder}/a.npz: whole, 5 arrays, 56 bytes"

    content = bytearray((folder / "a.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "bad.npz").write_bytes(content)
    result = run(f"checkpoint verify {tmp_path}/bad.npz {folder}/a.npz", 1)
    assert "bad.npz is damaged" in result.stderr
    assert result.stdout == f"{folder}/a.npz: whole, 5 arrays, 56 bytes\n"
    one, other = data(f"checkpoint verify {tmp_path}/bad.npz {folder}/a.npz", 1)
    assert "does not match" in one["error"] or "do not match" in one["error"]
    assert not one["whole"] and other["whole"]


def test_verify_compares_the_checksum_of_every_array(folder, tmp_path):
    path = tmp_path / "a.safetensors"
    content = (folder / "a.safetensors").read_bytes()
    ones = np.ones(4, np.float32).tobytes()
    assert content.count(ones) == 1
    content = content.replace(ones, np.full(4, 2.0, np.float32).tobytes())
    # As if the file had been sealed after the damage.
    digits = content.rindex(seal.MARK) + len(seal.MARK)
    path.write_bytes(content[:digits] + seal.DIGITS + content[digits + 8 :])
    seal.seal_file(path)
    assert (
        "the bits of params/dense/bias differ"
        in run(f"checkpoint verify {path}", 1).stderr
    )


def test_diff_names_what_differs(folder):
    found = data(f"checkpoint diff {folder}/a.npz {folder}/b.msgpack", 1)
    arrays = {x["name"]: x for x in found["arrays"]}
    assert arrays.pop("params/dense/bias")["difference"] == 0.5
    assert arrays.pop("opt_state/scale_by_learning_rate/learning_rate")["a"]
    assert {x["a"] for x in arrays.values()} == {None}  # the momentum
    facts = {x["what"]: (x["a"], x["b"]) for x in found["facts"]}
    assert facts.pop("step") == (5, 6) and facts.keys() == {"recipe"}
    text = run(f"checkpoint diff {folder}/a.npz {folder}/b.msgpack", 1).stdout
    assert text.startswith("step: 5 -> 6\nrecipe: sgd(learning_rate=0.1) -> chain(")
    assert "params/dense/bias " in text and text.count(" 0.5\n") == 1


def test_diff_of_the_same_in_two_forms_is_nothing(folder):
    command = f"checkpoint diff {folder}/a.npz {folder}/a.safetensors"
    assert run(command).stdout == "no difference\n"
    assert data(command) == {"facts": [], "arrays": []}


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("ls {}/nothing", 2, "there is no .*nothing"),
        ("verify {}/nothing", 2, "there is no .*nothing"),
        ("diff {}/a.npz {}/run", 2, "has several checkpoints; name one: .*run/10, "),
        ("ls {}/notes", 2, "notes is not a checkpoint, and has none"),
        ("ls {}/notes/a.txt", 1, "a.txt is not a checkpoint, which is a folder or has"),
        ("ls {}/notes/a.npz", 2, "there is no .*a.npz"),
        ("verify {}/notes/a.txt", 1, "a.txt"),
    ],
)
def test_what_is_not_a_checkpoint_is_a_message(folder, command, status, message):
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "a.txt").write_text("not a checkpoint")
    result = run("checkpoint " + command.replace("{}", str(folder)), status)
    assert result.stdout == ""
    assert re.match(f"jopt: .*{message}", result.stderr), result.stderr


def test_ls_of_a_folder_goes_on_after_one_that_is_damaged(folder, tmp_path):
    (tmp_path / "a.npz").write_bytes((folder / "a.npz").read_bytes())
    (tmp_path / "b.npz").write_bytes(b"PK")
    result = run(f"checkpoint ls {tmp_path}")
    assert "b.npz is damaged or not written by jopt.checkpoint" in result.stderr
    assert f"{tmp_path}/a.npz" in result.stdout
