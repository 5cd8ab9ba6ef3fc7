"""Assignments: costs as low as scipy's, under jit and vmap, and with derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jopt.losses import base_hungarian_algorithm, hungarian_algorithm


RNG = np.random.default_rng(0)
SHAPES = [(1, 1), (4, 4), (3, 7), (7, 3), (12, 12)]


def least(costs: np.ndarray) -> float:
    rows, columns = scipy.optimize.linear_sum_assignment(costs)
    return costs[rows, columns].sum()


@pytest.mark.parametrize("shape", SHAPES)
def test_costs_are_those_of_scipy(shape: tuple[int, int]) -> None:
    costs = RNG.normal(size=(40, *shape)).astype("f4")
    costs[::4] = RNG.integers(-3, 4, size=costs[::4].shape)  # with ties
    costs[1::4] *= 1e6
    rows, columns = jax.jit(jax.vmap(hungarian_algorithm))(costs)
    assert rows.shape == columns.shape == (40, min(shape))
    for cost, i, j in zip(costs, np.asarray(rows), np.asarray(columns), strict=True):
        assert np.all(np.diff(i) > 0) and len(set(j)) == len(j)
        assert {*i} <= {*range(shape[0])} and {*j} <= {*range(shape[1])}
        np.testing.assert_allclose(
            cost[i, j].sum(), least(cost), rtol=1e-5, atol=1e-6 * np.abs(cost).max()
        )


def test_pairs_of_rows_and_columns_without_ties_are_those_of_scipy() -> None:
    costs = RNG.permutation(30).reshape(6, 5) ** 2
    found, wanted = hungarian_algorithm(costs), scipy.optimize.linear_sum_assignment
    np.testing.assert_array_equal(found, wanted(costs))
    np.testing.assert_array_equal(base_hungarian_algorithm(costs), found)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_rows_or_columns_have_no_pairs(shape: tuple[int, int]) -> None:
    for found in hungarian_algorithm(jnp.zeros(shape)):
        assert found.shape == (0,) and found.dtype == jnp.int32


def test_infinite_costs_forbid_pairs() -> None:
    costs = RNG.normal(size=(6, 6)).astype("f4")
    costs[RNG.random((6, 6)) < 0.5] = np.inf
    costs[range(6), range(6)] = 9
    rows, columns = hungarian_algorithm(costs)
    np.testing.assert_allclose(costs[rows, columns].sum(), least(costs), rtol=1e-6)


def test_without_a_possible_assignment_it_still_ends() -> None:
    costs = np.full((3, 3), np.inf, "f4")
    costs[:, 0] = 1, 2, 3
    for matrix in (costs, np.full((3, 3), np.inf, "f4")):
        rows, columns = jax.jit(hungarian_algorithm)(matrix)
        assert sorted(columns.tolist()) == [0, 1, 2] == rows.tolist()


def test_the_costs_of_the_pairs_have_derivatives() -> None:
    def total(costs):
        rows, columns = hungarian_algorithm(costs)
        return costs[rows, columns].sum()

    gradient = jax.grad(total)(jnp.array([[1.0, 2.0], [1.0, 5.0], [9.0, 9.0]]))
    np.testing.assert_array_equal(gradient, [[0, 1], [1, 0], [0, 0]])
