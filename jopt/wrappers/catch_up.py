"""``catch_up``: row-sparse steps that end where dense ones do.

A row that is not touched in a step has a gradient of zero, but its moments decay, and
the weights move by momentum and weight decay. `catch_up` takes these steps later, when
the row is touched again, or looked at:

    for s = last + 1, …, t - 1:   u <- inner(0) of step s,   p <- p + u      of the row
    u <- inner(g) of step t,   last <- t

State: 4 bytes per row beyond the inner transformation's. A step costs what it costs for
the touched rows, and once more for every step that the longest untouched of them has
missed. Where that is much, let the rows be lazy; see `jopt.RowSparse`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import masks, tree_checks
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params
from jopt.core.factory import transformation
from jopt.core.masks import Mask
from jopt.core.slots import filled
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    OptState,
    Params,
)
from jopt.tree.row_sparse import RowSparse, is_rows
from jopt.values.arguments import abbreviated, suggestion
from jopt.values.recipe import Recipe
from jopt.wrappers.missed_steps import check_member, members, replayed


class CatchUpState(NamedTuple):
    """State of `catch_up`."""

    count: jax.Array  # int32 scalar, updates so far
    last: Any  # int32 (rows, 1, …): the update that each row is at; None elsewhere
    inner_state: Any  # of the inner transformation


@transformation
def catch_up(inner: GradientTransformation, tables: Mask) -> GradientTransformation:
    """Take the steps that a row of a table has missed, when it is touched again.

    With row-sparse gradients for the tables, touched rows are what dense gradients
    would make them. The loss has to see them so: call `jopt.caught_up` for the rows
    that will be looked up, before they are. All others are behind, in the parameters
    and in the state, until `jopt.caught_up` or `jopt.eval_params` is called for all.

    Args:
      inner: A whole optimizer, for what stands behind this in a chain would not see the
        missed steps. What computes its scalars from the step and hyperparameters only,
        and treats every row by itself. What looks at the gradients, such as
        `clip_by_global_norm`, can stand before this in a chain.
      tables: The leaves that get row-sparse gradients; see `jopt.Mask`. Single
        numbers have no rows, and are not among them.

    Returns:
      A transformation; it needs params. A number that is set by hand counts for the
      missed steps too.

    Raises:
      TypeError: A missed step of ``inner`` could not be taken later.

    >>> import jopt
    >>> tx = jopt.catch_up(jopt.sgd(1.0, momentum=0.5), "table")
    >>> params = {"table": jnp.zeros((2, 1))}
    >>> state = tx.init(params)
    >>> for row in (0, 1, 1):
    ...     g = {"table": jopt.RowSparse(jnp.array([row]), jnp.ones((1, 1)), 2)}
    ...     updates, state = tx.update(g, state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> params["table"].ravel(), jopt.eval_params(tx, state, params)["table"].ravel()
    (Array([-1. , -2.5], dtype=float32), Array([-1.75, -2.5 ], dtype=float32))
    """
    return CatchUp(as_transformation(inner, "catch_up: inner"), tables)


class CatchUp(GradientTransformation):
    """What `catch_up` returns."""

    inner: GradientTransformation

    tables: Mask

    def __new__(
        cls,
        inner: GradientTransformation,
        tables: Mask,
        *,
        recipe: Recipe | None = None,
    ) -> Self:
        for member in members(inner).values():
            check_member(member)

        def init(params):
            named = tree.leaves_with_names(params, none=True)
            chosen = masks.select(tables, params)
            last = [
                _step_of_rows(p) if on and np.ndim(p) and len(p) else None
                for (_, p), on in zip(named, chosen, strict=True)
            ]
            treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
            zero = jnp.zeros((), jnp.int32)
            return CatchUpState(zero, treedef.unflatten(last), inner.init(params))

        def update(updates, state, params):
            given, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
            aligned = functools.partial(tree_checks.aligned, updates, given, treedef)
            before = aligned(params, "params")
            tree_checks.leaves(given, updates, "updates")
            last = aligned(state.last, "the state's last", shapes=_one_per_row)
            rows = {
                i: _as_rows(g)
                for i, g in enumerate(given)
                if g is not None and last[i] is not None
            }
            behind = last, state.count, state.inner_state
            now, own = replayed(inner, treedef, before, rows, *behind)
            leaves = [rows.get(i, g) for i, g in enumerate(given)]
            new, own = inner.update(
                treedef.unflatten(leaves), own, treedef.unflatten(now)
            )
            count, new = tree.safe_increment(state.count), treedef.flatten_up_to(new)
            for i, g in rows.items():
                last[i] = g.scattered(last[i], count)
                new[i] = _with_the_missed(new[i], before[i], now[i])
                if not is_rows(given[i]):
                    new[i] = new[i].rows
            state = CatchUpState(count, treedef.unflatten(last), own)
            return treedef.unflatten(new), state

        def readout(state, params):
            params, state = _up_to_date(inner, state, params, None)
            return eval_params(inner, state.inner_state, params, default=params)

        self = super().__new__(
            cls,
            init,
            update,
            children={"inner_state": inner},
            needs=Needs(frozenset({"params"}), frozenset({"params"})),
            readout=readout,
            recipe=recipe,
        )
        self.inner, self.tables = inner, tables
        return self

    def arguments(self) -> dict[str, Any]:
        return {"inner": self.inner, "tables": self.tables, "recipe": self.recipe}


def caught_up(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    ids: Mapping[str, Any] | None = None,
) -> tuple[Params, OptState]:
    """The parameters and the state in which rows have taken the steps they missed.

    Before a loss looks rows up, for these; before the parameters and the state are
    saved for something else than going on, for all.

    Args:
      tx: A transformation with a `jopt.catch_up` in it.
      state: Its state.
      params: The parameters.
      ids: Which rows, by the table's path, as in `jopt.sparse_value_and_grad`; None is
        all rows of all tables.

    Returns:
      ``(params, state)``.

    Raises:
      ValueError: There is no `jopt.catch_up`, or it has no table at one of the paths.

    >>> import jopt
    >>> tx = jopt.catch_up(jopt.sgd(1.0, momentum=0.5), "table")
    >>> params = {"table": jnp.zeros((2, 1))}
    >>> g = {"table": jopt.RowSparse(jnp.array([0]), jnp.ones((1, 1)), 2)}
    >>> params, state = jopt.step(tx, g, tx.init(params), params)
    >>> g = {"table": jopt.RowSparse(jnp.array([1]), jnp.ones((1, 1)), 2)}
    >>> params, state = jopt.step(tx, g, state, params)
    >>> jopt.caught_up(tx, state, params)[0]["table"].ravel()
    Array([-1.5, -1. ], dtype=float32)
    """
    found = list(_catch_ups(tx, state))
    if not found:
        raise ValueError(f"there is no catch_up in {abbreviated(tx)}")
    tables = [
        path
        for own in found
        for path, at in tree.leaves_with_names(own.last, none=True)
        if at is not None
    ]
    for path in ids or ():
        if path not in tables:
            raise ValueError(
                f"ids: catch_up has no table at {path!r}, but at {tables}."
                f"{suggestion(path, tables)}"
            )
    return _caught_up(tx, state, params, None if ids is None else dict(ids))


def _inside(
    tx: GradientTransformation, state: OptState
) -> Iterator[tuple[str, GradientTransformation, OptState]]:
    """The transformations in one, with their names and states, if they have any."""
    for name, child in tx.children.items():
        is_dict = isinstance(state, Mapping)
        own = state.get(name) if is_dict else getattr(state, name)
        if own is not None:
            yield name, child, own


def _catch_ups(tx: GradientTransformation, state: OptState) -> Iterator[CatchUpState]:
    if isinstance(tx, CatchUp):
        yield state
        return
    for _, child, own in _inside(tx, state):
        yield from _catch_ups(child, own)


@functools.partial(jax.jit, static_argnums=0)
def _caught_up(
    tx: GradientTransformation, state: OptState, params: Params, ids: Any
) -> tuple[Params, OptState]:
    if isinstance(tx, CatchUp):
        return _up_to_date(tx.inner, state, params, ids)
    for name, child, own in _inside(tx, state):
        params, own = _caught_up(child, own, params, ids)
        is_dict = isinstance(state, Mapping)
        state = {**state, name: own} if is_dict else state._replace(**{name: own})
    return params, state


def _up_to_date(
    inner: GradientTransformation, state: OptState, params: Params, ids: Any
) -> tuple[Params, OptState]:
    named = tree.leaves_with_names(params, none=True)
    treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
    last = treedef.flatten_up_to(state.last)
    rows = {
        i: _nothing(p, None if ids is None else ids[path])
        for i, (path, p) in enumerate(named)
        if last[i] is not None and (ids is None or path in ids)
    }
    leaves = [leaf for _, leaf in named]
    behind = last, state.count, state.inner_state
    leaves, own = replayed(inner, treedef, leaves, rows, *behind)
    for i, g in rows.items():
        last[i] = g.scattered(last[i], state.count)
    state = state._replace(last=treedef.unflatten(last), inner_state=own)
    return treedef.unflatten(leaves), state


def _one_per_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *[1] * (len(shape) - 1))


def _step_of_rows(table: Any) -> jax.Array:
    return filled(table, 0, jnp.int32, tuple(range(1, np.ndim(table))))


def _as_rows(g: Any) -> RowSparse:
    """A dense gradient touches all rows."""
    if is_rows(g):
        return g.coalesced()
    return RowSparse(jnp.arange(len(g), dtype=jnp.int32), g, len(g))


def _nothing(table: Any, ids: Any) -> RowSparse:
    """A gradient of zero for some rows; None is all."""
    if ids is None:
        return _as_rows(jnp.zeros_like(table))
    flat = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(ids)])
    rows = jnp.zeros((len(flat), *table.shape[1:]), table.dtype)
    return RowSparse(flat, rows, len(table)).coalesced()


def _with_the_missed(u: RowSparse, before: Any, now: Any) -> RowSparse:
    """The update from where the parameter was before the missed steps."""
    wide = tree.compute_dtype(now.dtype)
    moved = u.gathered(now).astype(wide) - u.gathered(before).astype(wide)
    rows = (u.rows.astype(wide) + moved).astype(u.dtype)
    rows = jnp.where(u.is_row, rows, 0)
    return RowSparse(u.ids, rows, u.num_rows)
