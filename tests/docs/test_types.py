"""A type checker finds the mistakes of a user's script."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = """\
import jax
import jax.numpy as jnp

import jopt


def loss(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(params["w"] ** 2)


params = {"w": jnp.ones(3)}
grads = jax.grad(loss)(params)

# What is right passes: numbers, arrays, schedules, tunable numbers, plain functions.
tx = jopt.adamw(1e-3)
tx = jopt.adamw(jnp.float32(1e-3), b1=jopt.tunable(0.9), mu_dtype="bfloat16")
tx = jopt.adamw(jopt.cosine_decay_schedule(1e-3, 100), mask=jopt.is_bias_or_norm)
tx = jopt.chain(jopt.clip(1.0), jopt.sgd(lambda count: 0.1 / (1 + count)))
state = tx.init(params)
updates, state = tx.update(grads, state, params)
params = jopt.apply_updates(params, updates)
rate = jopt.hyperparams(state)["learning_rate"].item()

jopt.adamm(1e-3)  # 1: no such optimizer
jopt.adam()  # 2: no learning rate
jopt.adam("0.1")  # 3: a text for a number
jopt.adam(1e-3, beta_1=0.9)  # 4: Keras's name of an argument
jopt.adam(1e-3, eps_mode="inside")  # 5: a word that is not among the options
jopt.chain(jopt.clip(1.0), 0.1)  # 6: a number for a transformation
tx.updates(grads, state, params)  # 7: no such method
tx.update(grads, params=params)  # 8: no state
weights: list[jax.Array] = jopt.apply_updates(params, updates)  # 9: it is a dict
jopt.names(kind="optimiser")  # 10: a kind that does not exist
"""
WRONG = {
    number: line
    for line, text in enumerate(SCRIPT.splitlines())
    if (number := text.partition("# ")[2].partition(":")[0]).isdigit()
}


def test_a_type_checker_reports_the_ten_mistakes_of_a_script(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed: pip install -e .[lint]")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "pyright", "--outputjson", str(script)]
    command += ["--pythonpath", sys.executable]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    lines = {
        report["range"]["start"]["line"]
        for report in json.loads(output)["generalDiagnostics"]
        if report["severity"] == "error"
    }
    assert lines == set(WRONG.values())
