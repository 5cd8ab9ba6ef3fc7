"""Row-sparse arrays: the rows of a table that a step has touched.

The gradient of an embedding is zero but for the rows that were looked up. `RowSparse`
holds those, and stands in a tree of gradients or updates for one leaf.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np


_MOST = 2**31 - 1  # ids are int32


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class RowSparse:
    """Some rows of an array that is zero elsewhere; one leaf of the updates.

    A row that occurs several times counts as the sum. An id that is no row of the
    table, below 0 or from ``num_rows`` on, is padding: it fills up a fixed number of
    ids, and what its row holds is ignored.

    Every leafwise transformation works on these rows of the leaf, of the parameter and
    of its slots, and leaves all others as they are (torch's ``SparseAdam``, LazyAdam):
    moments and weights do not decay, and averages of the parameters do not follow,
    while a row is not touched.
    `jopt.densify` takes the gradient for what it is, zero elsewhere (Keras 3), and
    `jopt.catch_up` does so in time for the row's next use.

    Args:
      ids: Which rows, integers of shape (k,).
      rows: The rows, of shape (k, …).
      num_rows: How many rows the table has, >= 1.

    Raises:
      TypeError: The ids are no integers, the rows are some, or ``num_rows`` is none.
      ValueError: The shapes do not fit each other.

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
            raise TypeError(f"num_rows must be a whole number, got {self.num_rows!r}")
        object.__setattr__(self, "num_rows", int(self.num_rows))
        if self.num_rows < 1:
            raise ValueError(f"num_rows must be >= 1, got num_rows={self.num_rows}")
        object.__setattr__(self, "ids", jnp.asarray(self.ids))
        object.__setattr__(self, "rows", jnp.asarray(self.rows))
        self.check()

    def check(self) -> None:
        """Raise unless the arrays are ids and rows that belong together.

        JAX makes these objects of anything, and what maps a function over all arrays of
        a tree changes the ids too.
        """
        if not jnp.issubdtype(self.ids.dtype, jnp.integer):
            raise TypeError(
                f"the ids of a RowSparse must be integers, got {self.ids.dtype}. A "
                "function of all arrays of a tree changes the ids too: put "
                "jopt.densify() before a transformation that does so"
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
        made = object.__new__(cls)  # JAX puts in what is no array, too
        for name, x in zip(("ids", "rows"), children, strict=True):
            object.__setattr__(made, name, x)
        object.__setattr__(made, "num_rows", num_rows)
        return made

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
        """The same with every row once, in order, and behind them the padding, zero.

        The sums are formed in float32 or wider and rounded once. The ids of the padding
        are all different.

        >>> g = RowSparse(jnp.array([2, 0, 2, -1]), jnp.ones((4, 1)), num_rows=3)
        >>> g.coalesced().rows.ravel()
        Array([1., 2., 0., 0.], dtype=float32)
        """
        self.check()
        ids, rows = _coalesced(self.ids, self.rows, self.num_rows)
        return self.tree_unflatten(self.num_rows, (ids, rows))

    def as_leaf(self) -> AsLeaf:
        """The same as one leaf for JAX, which no compiled function takes."""
        return AsLeaf.tree_unflatten(self.num_rows, (self.ids, self.rows))

    def todense(self) -> jax.Array:
        """The whole table.

        >>> RowSparse(jnp.array([1]), jnp.ones((1, 2)), num_rows=2).todense()
        Array([[0., 0.],
               [1., 1.]], dtype=float32)
        """
        own = self.coalesced()
        return own.scattered(jnp.zeros(own.shape, own.dtype), own.rows)

    # What follows is for what is coalesced.

    def gathered(self, table: Any) -> jax.Array:
        """The rows of a table at the ids; of padding, some row."""
        # That keeps rules from dividing the zeros of no row by each other.
        table = jnp.asarray(table)
        options = {"mode": "clip", "unique_indices": True, **_explicit(table, of=1)}
        return table.at[self.ids].get(**options)

    def scattered(self, table: Any, rows: Any) -> jax.Array:
        """The table with these rows at the ids."""
        table = jnp.asarray(table)
        options = {"mode": "drop", "unique_indices": True, **_explicit(table, of=0)}
        return table.at[self.ids].set(rows, **options)

    @property
    def is_row(self) -> jax.Array:
        """Which ids are rows, not padding, in a shape that broadcasts to the rows."""
        return (self.ids < self.num_rows).reshape(-1, *[1] * (self.ndim - 1))


def _explicit(table: jax.Array, of: int) -> dict[str, Any]:
    """How what is like a table from axis ``of`` on lies, where that has to be said."""
    own = jax.typeof(table).sharding
    if not any(own.spec):
        return {}
    spec = jax.P(*[None] * of, *own.spec[of:])
    return {"out_sharding": own.update(spec=spec)}


class AsLeaf(RowSparse):
    """A `RowSparse` that JAX takes for a leaf, so that nothing sees ids as numbers."""


def is_leaf(x: Any) -> bool:
    """Whether it is one leaf of the updates, where JAX would see none or two: for
    ``is_leaf`` of the functions of `jax.tree`.

    Args:
      x: A part of a tree.

    >>> is_leaf(None), is_leaf(jnp.ones(2))
    (True, False)
    """
    return x is None or isinstance(x, RowSparse)


def is_rows(x: Any) -> bool:
    """Whether it is a `RowSparse`."""
    return isinstance(x, RowSparse)


def touched(x: Any) -> Any:
    """The rows of a `RowSparse`, each once; anything else as it is.

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
    padding = num_rows + jnp.arange(k, dtype=jnp.int32)
    ids = jnp.where(valid, ids.astype(jnp.int32), padding)
    rows = jnp.where(valid.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)
    if k < 2:
        return ids, rows
    # They often are so already, as between the members of a chain.
    tidy = jnp.all(ids[1:] > ids[:-1])
    summed = functools.partial(_summed, num_rows=num_rows)
    return jax.lax.cond(tidy, lambda *own: own, summed, ids, rows)


def _summed(
    ids: jax.Array, rows: jax.Array, num_rows: int
) -> tuple[jax.Array, jax.Array]:
    """The ids in order, each once, and the sums of their rows."""
    k = len(ids)
    order, like_rows = jnp.argsort(ids), _explicit(rows, of=0)
    ids, wide = ids[order], np.promote_types(rows.dtype, np.float32)
    is_first = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
    place = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    sums = jnp.zeros_like(rows, wide)
    sums = sums.at[place].add(
        rows.at[order].get(**like_rows).astype(wide),
        indices_are_sorted=True,
        **like_rows,
    )
    # The places that are left over are padding, behind that which was there.
    left_over = num_rows + k + jnp.arange(k, dtype=jnp.int32)
    return left_over.at[place].set(ids), sums.astype(rows.dtype)
