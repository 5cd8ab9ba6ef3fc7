"""What training with less memory has shown, and that its page says it."""

from __future__ import annotations

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jopt.inspect import RaceTask
from tests.benchmarks import low_precision, memory
from tests.benchmarks.low_precision import KEPT, PAGE, RECIPES, RUNS


FOUND = json.loads(KEPT.read_text())
NEAREST = "bfloat16, rounded to nearest"


def test_the_page_has_the_table_that_the_numbers_give() -> None:
    begin = "<!-- low_precision: python -m tests.benchmarks.low_precision --docs -->\n"
    generated = f"{begin}{low_precision.report(FOUND)}<!-- end -->\n"
    assert generated in PAGE.read_text(), "run python -m tests.benchmarks.low_precision"
    assert [*FOUND] == [*RECIPES]


def test_the_page_has_the_memory_of_the_same_recipes() -> None:
    found = json.loads(memory.KEPT.read_text())
    begin = "<!-- memory: python -m tests.benchmarks.memory --docs -->\n"
    assert f"{begin}{memory.report(found)}<!-- end -->\n" in PAGE.read_text()
    assert all([*row] == [*RECIPES] for row in found.values())


@pytest.mark.parametrize("task", RUNS)
def test_every_recipe_reaches_float32_but_rounding_to_nearest(task: str) -> None:
    exact = np.array(FOUND["float32"][task]["losses"])
    noise = exact.std(ddof=1)
    for recipe, row in FOUND.items():
        behind = np.mean(row[task]["losses"] - exact)
        assert (behind > 2 * noise) == (recipe == NEAREST), recipe
        assert recipe == NEAREST or abs(behind) < noise, recipe


def test_a_recipe_can_be_trained_and_its_bytes_are_counted() -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    task = RaceTask(
        init=lambda key: jnp.zeros(8192),
        loss=lambda w, batch, key: jnp.mean((w[0] * batch - 0.5 * batch) ** 2),
        train=x,
        validation=x,
        test=x,
        steps=60,
        batch_size=16,
    )
    run = low_precision.Run("", lambda: task, 60, 0.05, "train")
    bytes_of: dict[str, Any] = {}
    for name in ("float32", '`bf16_params(…, "ecc8")`'):
        row = low_precision.trained(run, RECIPES[name], task, run.steps)
        assert max(row["losses"]) < 0.01
        bytes_of[name] = round(row["bytes"])
    assert [*bytes_of.values()] == [16, 13]
