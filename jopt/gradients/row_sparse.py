"""Gradients of embeddings without the table: how they are made, and made dense.

A model that looks up k rows of an (N, D) table has a gradient of k rows. Written down
for the table it is (N, D), nearly all zeros, and an optimizer that reads it reads and
writes its whole state. `sparse_value_and_grad` never makes it:

    rows <- table[ids]                       outside of what is differentiated
    loss(params with the rows in the table's place) -> d loss / d rows
    RowSparse(ids, d loss / d rows, N)       one leaf of the gradients

What a transformation does to such a leaf is said in `RowSparse`.
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
from jopt.tree.row_sparse import RowSparse
from jopt.values.arguments import abbreviated, suggestion


def sparse_value_and_grad(
    fun: Callable[..., Any],
    lookups: Callable[..., Mapping[str, Any]],
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Updates]]:
    """``jax.value_and_grad`` for a loss that looks up rows of tables.

    The loss gets the rows that were looked up in the place of the table, so no array of
    the table's shape is made on the way.

    Args:
      fun: ``fun(params, *args, **kwargs) -> loss``. Where ``params`` has a table, it
        gets the rows for the ids of ``lookups``: an array of their shape and a row's.
      lookups: ``lookups(*args, **kwargs) -> {path: ids}``: the path of each table among
        the parameters, and which of its rows are looked up: an array of integers of any
        shape, or a tree of them if there is more than one lookup (the loss then gets a
        tree of rows). An id that is no row of the table, such as -1, gives zeros.
      has_aux: Whether the loss is ``(loss, aux)``.

    Returns:
      A function of the same arguments that gives ``(loss, gradients)``, where the
      gradient of a table is a `RowSparse` with as many rows as there are ids: each that
      was looked up once, then padding.

    Raises:
      ValueError: There is no parameter at a path.
      TypeError: The ids are no integers.

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
        tables = dict(named)
        ids = lookups(*args, **kwargs)
        for path, own in ids.items():
            _check_lookup(path, tables, own)
        ids = {n: jax.tree.map(_at_rows(tables[n]), own) for n, own in ids.items()}
        seen = [
            jax.tree.map(functools.partial(_rows, leaf), ids[path])
            if path in ids
            else leaf
            for path, leaf in named
        ]
        value, grads = jax.value_and_grad(fun, has_aux=has_aux)(
            treedef.unflatten(seen), *args, **kwargs
        )
        found = [
            _gradient(leaf, ids[path], g) if path in ids else g
            for (path, leaf), g in zip(named, treedef.flatten_up_to(grads), strict=True)
        ]
        return value, treedef.unflatten(found)

    return value_and_grad


def _check_lookup(path: str, tables: Mapping[str, Any], ids: Any) -> None:
    if tables.get(path) is None:
        raise ValueError(
            f"lookups: there is no parameter at {path!r}; the paths are "
            f"{sorted(tables)}.{suggestion(path, tables)}"
        )
    if not np.ndim(tables[path]):
        raise ValueError(f"lookups: the parameter at {path!r} is one number, no table")
    for x in jax.tree.leaves(ids):
        if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
            raise TypeError(
                f"lookups: the ids for {path!r} must be integers, got {abbreviated(x)}"
            )


def _at_rows(table: Any) -> Callable[[Any], jax.Array]:
    """Ids of rows as they are, all others behind the table's end."""
    n = len(table)

    def at_rows(ids):
        ids = jnp.asarray(ids)
        ids = ids.astype(np.promote_types(ids.dtype, np.int32))
        return jnp.where((ids >= 0) & (ids < n), ids, n).astype(jnp.int32)

    return at_rows


def _rows(table: Any, ids: jax.Array) -> jax.Array:
    return jnp.asarray(table).at[ids].get(mode="fill", fill_value=0)


def _gradient(table: Any, ids: Any, grads: Any) -> RowSparse:
    flat = [jnp.ravel(x) for x in jax.tree.leaves(ids)]
    rows = [g.reshape(-1, *np.shape(table)[1:]) for g in jax.tree.leaves(grads)]
    # What looks at the numbers only, such as a check for NaN, then sees sums as well.
    own = RowSparse(jnp.concatenate(flat), jnp.concatenate(rows), len(table))
    return own.coalesced()
