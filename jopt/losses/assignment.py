"""Linear assignment: pairs of rows and columns with the least total cost.

Rows get their columns one after the other. Each row looks for the cheapest path along
which earlier rows may change their columns, until a column is free: Dijkstra's
algorithm on the costs ``c_ij - u_i - v_j``, which prices ``u`` of rows and ``v`` of
columns keep at 0 or more. That takes ``rows^2 * columns`` operations.

Kuhn, "The Hungarian method for the assignment problem", 1955. Crouse, "On implementing
2D rectangular assignment algorithms", 2016.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.losses.inputs import real, values
from jopt.tree.dtypes import compute_dtype, promoted


def hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return pairs of rows and columns such that the sum of their costs is least.

    Each row and each column is in one pair at most, and there are as many pairs as the
    smaller side allows. ``jit`` and ``vmap`` work; the result has no derivative, but
    the costs of the pairs do.

    Args:
      cost_matrix: The costs of all pairs. An infinite cost forbids a pair.

    Returns:
      The rows of the pairs in order, and their columns.

    Raises:
      ValueError: The costs are no matrix, or one of them is NaN or minus infinity and
        known before the run.
      TypeError: The costs are no real numbers.

    Crouse, "On implementing 2D rectangular assignment algorithms", 2016.

    >>> costs = jnp.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]])
    >>> rows, columns = hungarian_algorithm(costs)
    >>> columns, costs[rows, columns].sum()
    (Array([1, 0], dtype=int32), Array(3., dtype=float32))
    """
    known = values(cost_matrix)
    [costs] = real(cost_matrix=cost_matrix)
    if costs.ndim != 2:
        raise ValueError(
            f"cost_matrix must have rows and columns, got shape {costs.shape}; for a "
            "batch of matrices, use jax.vmap"
        )
    if known is not None and not np.all(known > -np.inf):
        raise ValueError("cost_matrix must not have NaN or minus infinity")
    dtype = compute_dtype(promoted(costs, 0.0))
    costs = jax.lax.stop_gradient(costs.astype(dtype))
    rows, columns = costs.shape
    if rows > columns:
        of_column = _columns_of_rows(costs.T)
        pairs = jnp.argsort(of_column)
        return of_column[pairs], pairs
    return jnp.arange(rows), _columns_of_rows(costs)


def base_hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return `hungarian_algorithm`; optax has two, jopt one under both names.

    Args:
      cost_matrix: The costs of all pairs.

    Returns:
      The rows of the pairs in order, and their columns.

    Raises:
      ValueError: The costs are no matrix, or one of them is NaN or minus infinity and
        known before the run.
      TypeError: The costs are no real numbers.

    >>> base_hungarian_algorithm(jnp.array([[1.0, 2.0], [1.0, 3.0]]))[1]
    Array([1, 0], dtype=int32)
    """
    return hungarian_algorithm(cost_matrix)


@jax.jit
def _columns_of_rows(costs: jax.Array) -> jax.Array:
    """The column of each row; there are at least as many columns."""
    rows, columns = costs.shape
    if rows == 0:
        return jnp.zeros(0, int)
    infinity, largest = jnp.inf, jnp.finfo(costs.dtype).max

    def with_row(row, assigned):
        u, v, row_of, column_of = assigned

        def is_taken(search):
            return search[-1]

        def nearest_column(search):
            distance, before, visited, at, length, _, _ = search
            through = length + costs[at] - u[at] - v
            nearer = ~visited & (through < distance)
            distance = jnp.where(nearer, through, distance)
            before = jnp.where(nearer, at, before)
            # Below infinity, so that no column is visited twice.
            open_distance = jnp.where(visited, infinity, jnp.minimum(distance, largest))
            column = jnp.argmin(open_distance)
            visited = visited.at[column].set(True)
            at = row_of[column]
            length = open_distance[column]
            return distance, before, visited, at, length, column, at >= 0

        # Columns that no path reaches come after this row.
        before = jnp.full(columns, row, int)
        distance = jnp.full(columns, infinity, costs.dtype)
        visited = jnp.zeros(columns, bool)
        length = jnp.zeros((), costs.dtype)
        start = (distance, before, visited, row, length, jnp.zeros((), int), True)
        found = jax.lax.while_loop(is_taken, nearest_column, start)
        distance, before, visited, _, length, column, _ = found

        surplus = jnp.where(visited, length - distance, 0)
        v = v - surplus
        u = u.at[row].add(length)
        # The free column has no row: its surplus is 0, wherever that goes.
        u = u.at[row_of].add(jnp.where(row_of >= 0, surplus, 0))

        def changes(path):
            return path[-1]

        def reassign(path):
            column, row_of, column_of, _ = path
            row_before = before[column]
            row_of = row_of.at[column].set(row_before)
            next_column = column_of[row_before]
            column_of = column_of.at[row_before].set(column)
            return next_column, row_of, column_of, row_before != row

        path = (column, row_of, column_of, True)
        _, row_of, column_of, _ = jax.lax.while_loop(changes, reassign, path)
        return u, v, row_of, column_of

    start: Any = (
        jnp.zeros(rows, costs.dtype),
        jnp.zeros(columns, costs.dtype),
        jnp.full(columns, -1, int),
        jnp.full(rows, -1, int),
    )
    return jax.lax.fori_loop(0, rows, with_row, start)[3]
