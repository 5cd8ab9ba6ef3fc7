"""Gradients of embedding tables as rows, never as a dense table.

A model that looks up k rows of an (N, D) table has a gradient of k rows. As a dense
array it is (N, D), nearly all zeros, and an optimizer that reads it reads and writes
its whole state. `sparse_value_and_grad` never makes that array:

    rows <- table[ids]                       outside the function that is differentiated
    loss(params with rows in place of the table) -> d loss / d rows
    RowSparse(ids, d loss / d rows, N)       one leaf of the gradients

`RowSparse` says how transformations treat such a leaf.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.transformation import Updates
from jopt.tree.paths import by_name
from jopt.tree.row_sparse import RowSparse
from jopt.values.arguments import abbreviated, suggestion


def sparse_value_and_grad(
    fun: Callable[..., Any],
    lookups: Callable[..., Mapping[str, Any]],
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Updates]]:
    """``jax.value_and_grad`` for a loss that looks up rows of tables.

    The loss gets the rows that were looked up in place of the table, so no array of the
    table's shape is made on the way.

    Args:
      fun: ``fun(params, *args, **kwargs) -> loss``. In place of each table, ``params``
        holds its rows for the ids of ``lookups``: an array of shape (ids..., row...).
      lookups: ``lookups(*args, **kwargs) -> {path: ids}``, with the path of each table
        among the parameters and the rows to look up: an integer array of any shape, or
        a tree of them for several lookups (the loss then gets a tree of rows). An id
        outside the table, such as -1, gives zeros.
      has_aux: Whether ``fun`` returns ``(loss, aux)``.

    Returns:
      A function of the same arguments that returns ``(loss, gradients)``. The gradient
      of a table is a `RowSparse` with as many rows as there are ids: each row that was
      looked up appears once, and padding follows.

    Raises:
      ValueError: There is no parameter at a path, or it is a scalar; or two parameters
        have the same path.
      TypeError: The ids are not integers.

    >>> import jopt
    >>> params = {"table": jnp.ones((5, 2)), "scale": jnp.ones(())}
    >>> def loss(params, tokens):
    ...     return params["scale"] * jnp.sum(params["table"])
    >>> grad = jopt.sparse_value_and_grad(loss, lambda tokens: {"table": tokens})
    >>> value, grads = grad(params, jnp.array([3, 1, 3]))
    >>> value, grads["table"].todense()[:, 0]
    (Array(6., dtype=float32), Array([0., 1., 0., 2., 0.], dtype=float32))
    """

    @functools.wraps(fun)
    def value_and_grad(params, *args, **kwargs):
        named = tree.leaves_with_names(params, none=True)
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        tables = by_name(named)
        ids = lookups(*args, **kwargs)
        for path, table_ids in ids.items():
            _check_lookup(path, tables, table_ids)
        ids = {
            path: jax.tree.map(_clipped_to(tables[path]), table_ids)
            for path, table_ids in ids.items()
        }
        with_rows = [
            jax.tree.map(functools.partial(_rows, leaf), ids[path])
            if path in ids
            else leaf
            for path, leaf in named
        ]
        value, grads = jax.value_and_grad(fun, has_aux=has_aux)(
            treedef.unflatten(with_rows), *args, **kwargs
        )
        gradients = [
            _gradient(leaf, ids[path], g) if path in ids else g
            for (path, leaf), g in zip(named, treedef.flatten_up_to(grads), strict=True)
        ]
        return value, treedef.unflatten(gradients)

    return value_and_grad


def _check_lookup(path: str, tables: Mapping[str, Any], ids: Any) -> None:
    if tables.get(path) is None:
        raise ValueError(
            f"lookups: there is no parameter at {path!r}; the paths are "
            f"{sorted(tables)}.{suggestion(path, tables)}"
        )
    if not np.ndim(tables[path]):
        raise ValueError(
            f"lookups: the parameter at {path!r} is one number, not a table"
        )
    for x in jax.tree.leaves(ids):
        if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
            raise TypeError(
                f"lookups: the ids for {path!r} must be integers, got {abbreviated(x)}"
            )


def _clipped_to(table: Any) -> Callable[[Any], jax.Array]:
    """Return a function that moves ids outside the table behind its last row."""
    n = len(table)

    def clipped(ids):
        ids = jnp.asarray(ids)
        # Not left as they are, because jnp counts negative ids from the end.
        ids = ids.astype(np.promote_types(ids.dtype, np.int32))
        return jnp.where((ids >= 0) & (ids < n), ids, n).astype(jnp.int32)

    return clipped


def _rows(table: Any, ids: jax.Array) -> jax.Array:
    return jnp.asarray(table).at[ids].get(mode="fill", fill_value=0)


def _gradient(table: Any, ids: Any, grads: Any) -> RowSparse:
    flat = [jnp.ravel(x) for x in jax.tree.leaves(ids)]
    rows = [g.reshape(-1, *np.shape(table)[1:]) for g in jax.tree.leaves(grads)]
    # Rows of one id are summed here, so that a check for NaN, or anything else that
    # only looks at the numbers, sees the sums.
    lookups = RowSparse(jnp.concatenate(flat), jnp.concatenate(rows), len(table))
    return lookups.coalesced()
