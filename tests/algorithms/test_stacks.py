"""Stacks of equal rows, and leaves as matrices."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jopt.algorithms import stacks


def with_number(rows: list[Any], number: Any) -> list[Any]:
    stack = stacks.stacked(rows)
    return stacks.split((stack["a"] @ stack["b"], stack["b"] + number), len(rows))


@pytest.mark.parametrize("axes", ["io", "oi", "bio", "iiio", "ioo", "obi"])
def test_a_leaf_becomes_matrices_and_comes_back(axes: str) -> None:
    leaf = jnp.arange(float(np.prod(range(2, 2 + len(axes))))).reshape(
        range(2, 2 + len(axes))
    )
    matrices = stacks.as_matrices(leaf, axes)
    assert matrices.ndim == 3
    np.testing.assert_array_equal(stacks.as_leaf(matrices, axes, leaf.shape), leaf)


def test_each_row_gets_what_it_gets_alone() -> None:
    rng = np.random.default_rng(0)

    def row(count: int, n: int) -> Any:
        a, b = rng.normal(size=(2, count, n, n))
        return {"a": jnp.asarray(a), "b": jnp.asarray(b)}

    rows = [row(*size) for size in [(1, 3), (2, 3), (1, 3), (1, 4)] * 5]
    found = stacks.together(with_number, rows, jnp.asarray(2.0))
    for i, (product, sum_) in enumerate(found):
        expected = rows[i]["a"] @ rows[i]["b"]
        np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(sum_, rows[i]["b"] + 2)


def test_stacks_have_one_size_where_that_is_possible() -> None:
    sizes = [len(s) for s in stacks.stacks([np.ones((1, 2, 2))] * 14)]
    assert sizes == [7, 7]
