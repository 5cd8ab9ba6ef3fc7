"""The table of differences in docs/from_optax.md: each row, run with both libraries."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.losses
import pytest

from jopt import losses


PAGE = (Path(__file__).parents[2] / "docs" / "from_optax.md").read_text()
INF, N, PAIR = jnp.inf, jnp.ones(3), jnp.ones((1, 2))
NOTHING = jnp.zeros((1, 1, 1))
HALF = jnp.full((1, 2), 0.5)
INTEGER = "softmax_cross_entropy_with_integer_labels"


def cosine_in_float16(m: Any) -> Any:
    x = jnp.full(2, 300, jnp.float16)  # the square is too large
    return m.cosine_similarity(x, x)


def gradient_of_labels(m: Any) -> Any:
    where = jnp.array([True, False])
    return jax.grad(m.softmax_cross_entropy, 1)(
        jnp.zeros(2), jnp.array([0.5, 0.5]), where=where
    )


def dice_of_probabilities(m: Any) -> Any:
    def loss(p):
        return m.dice_loss(p, jnp.array([[[1.0, 0.0]]]), apply_softmax=False, smooth=1)

    return jax.jit(loss)(jnp.array([[[0.0, 1.0]]]))


# The beginning of a row, a call, and what it gives in optax and here.
DIFFERENCES: list[tuple[str, Callable[[Any], Any], Any, Any]] = [
    ("float16 and bfloat16", cosine_in_float16, 0, 1),
    (
        "a shape",
        lambda m: jnp.array(m.huber_loss(N, N[:, None]).shape),
        [3, 3],
        "error",
    ),
    (
        "labels of shape",
        lambda m: m.softmax_cross_entropy(jnp.ones((1, 3)), jnp.array([[0]])),
        [0],
        "error",
    ),
    (
        "a class label out of range",
        lambda m: getattr(m, INTEGER)(jnp.zeros((1, 3)), jnp.array([3])),
        "nan",
        "error",
    ),
    (
        "a class label out of range",
        lambda m: getattr(m, INTEGER)(jnp.zeros((1, 3)), jnp.array([-1])),
        [np.log(3)],
        "error",
    ),
    (
        "labels of a float dtype",
        lambda m: m.sparsemax_loss(jnp.zeros(1), jnp.array([0.3])),
        [0.25],
        "error",
    ),
    (
        "infinite logits",
        lambda m: m.sigmoid_binary_cross_entropy(jnp.array([INF]), jnp.array([1])),
        "nan",
        [0],
    ),
    (
        "infinite logits",
        lambda m: m.kl_divergence(jnp.array([0, -INF]), jnp.array([1.0, 0.0])),
        "nan",
        0,
    ),
    ("a gradient for labels", gradient_of_labels, "nan", [0, 0]),
    (
        "a zero vector",
        lambda m: m.cosine_similarity(jnp.zeros(2), jnp.ones(2)),
        "nan",
        0,
    ),
    (
        "a zero vector",
        lambda m: m.cosine_similarity(jnp.array([1e30, 0]), jnp.array([2.0, 0])),
        0,
        1,
    ),
    (
        "a region",
        lambda m: m.dice_loss(
            jnp.full((1, 1, 1), -1e4), jnp.zeros((1, 1, 1)), smooth=0
        ),
        "nan",
        [0],
    ),
    ("`ntxent`", lambda m: m.ntxent(jnp.eye(2), jnp.array([0, 1])), "nan", 0),
    (
        "`triplet_margin_loss`",
        lambda m: m.triplet_margin_loss(
            jnp.zeros(2), jnp.array([3.0, -3.0]), jnp.zeros(2), -1, 1, 0, 0
        ),
        0,
        6,
    ),
    ("`dice_loss(apply_softmax=False)`", dice_of_probabilities, "error", [1 / 3]),
    (
        "`binary_dice_loss(apply_sigmoid=False)`",
        lambda m: m.binary_dice_loss(HALF, PAIR, apply_sigmoid=False, smooth=0),
        "error",
        [1 / 3],
    ),
    (
        "`where` of size 1",
        lambda m: m.smooth_labels(jnp.zeros((1, 2)), 1.0, where=jnp.ones((1, 1))),
        [[1, 1]],
        [[0.5, 0.5]],
    ),
]


def outcome(call: Callable[[Any], Any], module: Any) -> Any:
    try:
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            found = np.asarray(call(module))
    except (TypeError, ValueError):
        return "error"
    return "nan" if np.isnan(found).any() else found


@pytest.mark.parametrize(("row", "call", "theirs", "ours"), DIFFERENCES)
def test_both_libraries_give_what_the_table_says(
    row: str, call: Callable[[Any], Any], theirs: Any, ours: Any
) -> None:
    for module, wanted in ((optax.losses, theirs), (losses, ours)):
        found = outcome(call, module)
        if isinstance(wanted, str) or isinstance(found, str):
            assert found == wanted
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_the_table_has_these_rows() -> None:
    table = PAGE[PAGE.index("\n## Losses\n") :]
    table = table[: table.index("\n## ", 1)]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.M)
    assert len(rows) == len({row for row, *_ in DIFFERENCES}) > 10
    for start, *_ in DIFFERENCES:
        assert sum(row.startswith(start) for row in rows) == 1, start
