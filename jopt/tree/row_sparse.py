"""Row-sparse arrays: the rows of a table that a step has touched.

The gradient of an embedding is zero except in the rows that were looked up. `RowSparse`
holds these rows and counts as one leaf in a tree of gradients or updates.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jopt.values.arguments import text_of


_MOST = 2**31 - 1  # ids are int32


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class RowSparse:
    """Some rows of an array that is zero elsewhere; one leaf of the updates.

    If an id occurs several times, its rows are added. An id outside of
    [0, ``num_rows``) is padding: it fills a fixed number of ids, and its row is
    ignored.

    Every leafwise transformation works only on these rows of the leaf, of the parameter
    and of its slots (torch's ``SparseAdam``, LazyAdam): while a row is not touched, its
    moments and weights do not decay, and averages of the parameters do not follow it.
    `jopt.densify` treats the gradient as zero elsewhere (Keras 3); `jopt.catch_up` does
    the same, but only before a row's next use.

    Args:
      ids: The ids of the rows, integers of shape (k,).
      rows: The rows, floating point or complex, of shape (k, …).
      num_rows: The number of rows of the table, >= 1.

    Raises:
      TypeError: ``ids`` or ``num_rows`` is not integral, or ``rows`` is.
      ValueError: The shapes do not match, or ``num_rows`` is below 1 or too large.

    >>> g = RowSparse(jnp.array([2, 0, 2, 9]), jnp.ones((4, 1)), num_rows=3)
    >>> g.todense().ravel()
    Array([1., 0., 2.], dtype=float32)
    """

    ids: Any
    rows: Any
    num_rows: int

    def __post_init__(self) -> None:
        if isinstance(self.num_rows, bool) or not isinstance(
            self.num_rows, int | np.integer
        ):
            raise TypeError(
                f"num_rows must be a whole number, got {text_of(self.num_rows)}"
            )
        object.__setattr__(self, "num_rows", int(self.num_rows))
        if self.num_rows < 1:
            raise ValueError(f"num_rows must be >= 1, got num_rows={self.num_rows}")
        object.__setattr__(self, "ids", jnp.asarray(self.ids))
        object.__setattr__(self, "rows", jnp.asarray(self.rows))
        self.check()

    def check(self) -> None:
        """Raise unless ``ids`` and ``rows`` have matching dtypes and shapes.

        JAX rebuilds these objects with any content, so a function that is mapped over
        all arrays of a tree changes the ids too.
        """
        if not jnp.issubdtype(self.ids.dtype, jnp.integer):
            raise TypeError(
                f"the ids of a RowSparse must be integers, got {self.ids.dtype}. A "
                "transformation that maps a function over all arrays changes the ids "
                "too: put jopt.densify() before it"
            )
        if not jnp.issubdtype(self.rows.dtype, jnp.inexact):
            raise TypeError(
                "the rows of a RowSparse must be floating point or complex, got "
                f"{self.rows.dtype}"
            )
        if self.ids.ndim != 1 or self.rows.shape[:1] != self.ids.shape:
            raise ValueError(
                "a RowSparse has ids of shape (k,) and rows of shape (k, …), got "
                f"{self.ids.shape} and {self.rows.shape}"
            )
        if self.num_rows + 2 * len(self.ids) > _MOST:
            raise ValueError(f"num_rows={self.num_rows} is too many for int32 ids")

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], int]:
        key = jax.tree_util.GetAttrKey
        return ((key("ids"), self.ids), (key("rows"), self.rows)), self.num_rows

    @classmethod
    def tree_unflatten(cls, num_rows: int, children: tuple[Any, Any]) -> Self:
        # Without __init__ and its checks, because JAX also passes non-arrays.
        instance = object.__new__(cls)
        for name, x in zip(("ids", "rows"), children, strict=True):
            object.__setattr__(instance, name, x)
        object.__setattr__(instance, "num_rows", num_rows)
        return instance

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole table."""
        return (self.num_rows, *self.rows.shape[1:])

    @property
    def ndim(self) -> int:
        """The number of axes of the table."""
        return self.rows.ndim

    @property
    def size(self) -> int:
        """The number of elements of the whole table."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the rows."""
        return self.rows.dtype

    def coalesced(self) -> RowSparse:
        """Return it with unique, sorted ids; padding comes last and has zero rows.

        Equal ids are summed in float32 or wider and rounded once. The ids of the
        padding are unique too.

        >>> g = RowSparse(jnp.array([2, 0, 2, -1]), jnp.ones((4, 1)), num_rows=3)
        >>> g.coalesced().rows.ravel()
        Array([1., 2., 0., 0.], dtype=float32)
        """
        self.check()
        ids, rows = _coalesced(self.ids, self.rows, self.num_rows)
        return self.tree_unflatten(self.num_rows, (ids, rows))

    def with_rows(self, rows: jax.Array) -> RowSparse:
        """Return it with other rows at the same ids."""
        return self.tree_unflatten(self.num_rows, (self.ids, rows))

    def as_leaf(self) -> AsLeaf:
        """Return it as one leaf for JAX, which compiled functions do not accept."""
        return AsLeaf.tree_unflatten(self.num_rows, (self.ids, self.rows))

    def todense(self) -> jax.Array:
        """Return the whole table as an array.

        >>> RowSparse(jnp.array([1]), jnp.ones((1, 2)), num_rows=2).todense()
        Array([[0., 0.],
               [1., 1.]], dtype=float32)
        """
        unique = self.coalesced()
        return unique.scattered(jnp.zeros(unique.shape, unique.dtype), unique.rows)

    # The following methods need coalesced ids.

    def gathered(self, table: Any) -> jax.Array:
        """Return the rows of a table at the ids; for padding, some existing row."""
        # An existing row, because rules would divide 0 by 0 in rows of zeros.
        table = jnp.asarray(table)
        sharding = _out_sharding(table, axis=1)
        options = {"mode": "clip", "unique_indices": True, **sharding}
        return table.at[self.ids].get(**options)

    def scattered(self, table: Any, rows: Any) -> jax.Array:
        """Return the table with these rows at the ids."""
        table = jnp.asarray(table)
        sharding = _out_sharding(table, axis=0)
        options = {"mode": "drop", "unique_indices": True, **sharding}
        return table.at[self.ids].set(rows, **options)

    @property
    def is_row(self) -> jax.Array:
        """Whether each id is a row, not padding; broadcasts to the rows."""
        return (self.ids < self.num_rows).reshape(-1, *[1] * (self.ndim - 1))


def _out_sharding(table: jax.Array, axis: int) -> dict[str, Any]:
    """Return the option that shards a result like ``table`` from ``axis`` on.

    JAX requires it only for tables with explicit sharding; for others it is empty.
    """
    sharding = jax.typeof(table).sharding
    if not any(sharding.spec):
        return {}
    spec = jax.P(*[None] * axis, *sharding.spec[axis:])
    return {"out_sharding": sharding.update(spec=spec)}


class AsLeaf(RowSparse):
    """A `RowSparse` that JAX treats as a leaf, so that ids are not mapped over."""


def is_leaf(x: Any) -> bool:
    """Return whether ``x`` counts as one leaf of the updates: None or a `RowSparse`.

    JAX sees no leaf in the first and two in the second. For ``is_leaf`` of the
    functions of ``jax.tree``.

    Args:
      x: A part of a tree.

    >>> is_leaf(None), is_leaf(jnp.ones(2))
    (True, False)
    """
    return x is None or isinstance(x, RowSparse)


def is_rows(x: Any) -> bool:
    """Return whether ``x`` is a `RowSparse`."""
    return isinstance(x, RowSparse)


def touched(x: Any) -> Any:
    """Return the coalesced rows of a `RowSparse`, and anything else unchanged.

    >>> touched(RowSparse(jnp.array([1, 1]), jnp.ones((2, 1)), num_rows=5)).ravel()
    Array([2., 0.], dtype=float32)
    """
    return x.coalesced().rows if isinstance(x, RowSparse) else x


@functools.partial(jax.jit, static_argnums=2)
def _coalesced(
    ids: jax.Array, rows: jax.Array, num_rows: int
) -> tuple[jax.Array, jax.Array]:
    k = len(ids)
    ids = ids.astype(np.promote_types(ids.dtype, np.int32))
    valid = (ids >= 0) & (ids < num_rows)
    # Padding gets unique ids too, because gathered and scattered promise XLA that all
    # indices are unique.
    padding = num_rows + jnp.arange(k, dtype=jnp.int32)
    ids = jnp.where(valid, ids.astype(jnp.int32), padding)
    rows = jnp.where(valid.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)
    if k < 2:
        return ids, rows
    # Ids are often sorted and unique already, such as between the members of a chain.
    is_coalesced = jnp.all(ids[1:] > ids[:-1])
    sum_rows = functools.partial(_sum_rows, num_rows=num_rows)
    return jax.lax.cond(is_coalesced, lambda *same: same, sum_rows, ids, rows)


def _sum_rows(
    ids: jax.Array, rows: jax.Array, num_rows: int
) -> tuple[jax.Array, jax.Array]:
    """Return the sorted, unique ids and the sums of their rows."""
    k = len(ids)
    order, like_rows = jnp.argsort(ids), _out_sharding(rows, axis=0)
    ids, wide = ids[order], np.promote_types(rows.dtype, np.float32)
    is_first = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
    place = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    sums = jnp.zeros_like(rows, wide)
    sums = sums.at[place].add(
        rows.at[order].get(**like_rows).astype(wide),
        indices_are_sorted=True,
        **like_rows,
    )
    # Places freed by equal ids become padding, with ids after the existing padding.
    padding = num_rows + k + jnp.arange(k, dtype=jnp.int32)
    return padding.at[place].set(ids), sums.astype(rows.dtype)
