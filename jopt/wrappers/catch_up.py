"""``catch_up``: row-sparse steps that end where dense steps do.

A row that a step does not touch has a zero gradient, but its moments decay, and its
weights move by momentum and weight decay. `catch_up` takes these steps later, when the
row is touched or read:

    for s = last + 1, …, t - 1:   u <- inner(0) of step s,   p <- p + u      of the row
    u <- inner(g) of step t,   last <- t

State: 4 bytes per row on top of the inner transformation's. A step costs one update of
the touched rows, plus one for each step missed by the row that was untouched longest.
If that is too much, leave the rows lazy; see `jopt.RowSparse`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import masks
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.slots import filled
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    OptState,
    Params,
)
from jopt.tree.row_sparse import RowSparse, is_rows
from jopt.tree.variables import sees_arrays
from jopt.values.arguments import abbreviated, suggestion
from jopt.values.recipe import Recipe
from jopt.wrappers.missed_steps import check_member, members, replay


class CatchUpState(NamedTuple):
    """State of `catch_up`."""

    count: jax.Array  # int32 scalar, updates so far
    last: Any  # int32 (rows, 1, …): the update each row has reached; None elsewhere
    inner_state: Any  # state of the inner transformation


@transformation
def catch_up(inner: GradientTransformation, tables: Mask) -> GradientTransformation:
    """Take the steps that a row of a table has missed, when the row is touched again.

    With row-sparse gradients for the tables, touched rows end where dense gradients
    would take them. The loss must see up-to-date rows too: call `jopt.caught_up` on the
    rows that it is about to look up. All other rows lag behind, in the parameters and
    in the state, until `jopt.caught_up` or `jopt.eval_params` is called for all rows.

    Args:
      inner: A complete optimizer: members after `catch_up` in a chain do not see the
        missed steps. It must treat every row independently and compute its scalars from
        the step and hyperparameters only. Put members that read the gradients, such as
        `clip_by_global_norm`, before `catch_up` in a chain.
      tables: The leaves that get row-sparse gradients; see `jopt.Mask`. Single numbers
        have no rows and are ignored.

    Returns:
      A transformation; it needs params. A hyperparameter that is set by hand applies to
      the missed steps too.

    Raises:
      TypeError: A missed step of ``inner`` cannot be computed later.

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
    """A transformation made by `catch_up`."""

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
            inner_state = inner.init(params)
            named = tree.leaves_with_names(params, none=True)
            chosen = masks.select(tables, params)
            last = [
                _zero_steps(p) if on and np.ndim(p) and len(p) else None
                for (_, p), on in zip(named, chosen, strict=True)
            ]
            treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
            zero = jnp.zeros((), jnp.int32)
            return CatchUpState(zero, treedef.unflatten(last), inner_state)

        def update(updates, state, params):
            leaves = Leaves(updates, row_sparse=True)
            grads, treedef = leaves.values, leaves.treedef
            old_params = leaves.aligned(params, "params")
            last = leaves.aligned(state.last, "the state's last", shapes=_shape_per_row)
            rows = {
                i: _as_rows(g)
                for i, g in enumerate(grads)
                if g is not None and last[i] is not None
            }
            progress = last, state.count, state.inner_state
            current, inner_state = replay(inner, treedef, old_params, rows, *progress)
            sparse = [rows.get(i, g) for i, g in enumerate(grads)]
            new, inner_state = inner.update(
                leaves.tree(sparse), inner_state, leaves.tree(current)
            )
            count, new = tree.safe_increment(state.count), treedef.flatten_up_to(new)
            for i, g in rows.items():
                last[i] = g.scattered(last[i], count)
                # The caller adds the update to the old parameters, so the update has
                # to include the missed steps.
                new[i] = _with_missed_steps(new[i], old_params[i], current[i])
                if not is_rows(grads[i]):
                    new[i] = new[i].rows  # all rows, in order
            state = CatchUpState(count, treedef.unflatten(last), inner_state)
            return treedef.unflatten(new), state

        def readout(state, params, name=None):
            params, state = _catch_up_rows(inner, state, params, None)
            if not has_readout(inner):
                return params
            return eval_params(inner, state.inner_state, params, name=name)

        self = super().__new__(
            cls,
            init,
            update,
            children={"inner_state": inner},
            state_class=CatchUpState,
            needs=Needs(frozenset({"params"}), frozenset({"params"})),
            readout=readout,
            recipe=recipe,
        )
        self.inner, self.tables = inner, tables
        return self

    def arguments(self) -> dict[str, Any]:
        return {"inner": self.inner, "tables": self.tables, "recipe": self.recipe}


@sees_arrays("params", "state")
def caught_up(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    ids: Mapping[str, Any] | None = None,
) -> tuple[Params, OptState]:
    """Return parameters and state with the missed steps of rows taken.

    Call it on the rows that a loss is about to look up, and on all rows before
    saving the parameters and the state for any purpose but resuming.

    Args:
      tx: A transformation that contains a `jopt.catch_up`.
      state: The state of ``tx``.
      params: The parameters.
      ids: The ids of the rows, by the table's path, as in
        `jopt.sparse_value_and_grad`; None means all rows of all tables.

    Returns:
      ``(params, state)``.

    Raises:
      ValueError: ``tx`` contains no `jopt.catch_up`, or it has no table at a path of
        ``ids``.

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
    states = list(_catch_up_states(tx, state))
    if not states:
        raise ValueError(f"there is no catch_up in {abbreviated(tx)}")
    tables = [
        path
        for catch_up_state in states
        for path, last in tree.leaves_with_names(catch_up_state.last, none=True)
        if last is not None
    ]
    for path in ids or ():
        if path not in tables:
            raise ValueError(
                f"ids: catch_up has no table at {path!r}; its tables are {tables}."
                f"{suggestion(path, tables)}"
            )
    return _caught_up(tx, state, params, None if ids is None else dict(ids))


def _catch_up_states(
    tx: GradientTransformation, state: OptState
) -> Iterator[CatchUpState]:
    if isinstance(tx, CatchUp):
        yield state
        return
    for _, child, child_state in tx.inside(state):
        yield from _catch_up_states(child, child_state)


@functools.partial(jax.jit, static_argnums=0)
def _caught_up(
    tx: GradientTransformation, state: OptState, params: Params, ids: Any
) -> tuple[Params, OptState]:
    if isinstance(tx, CatchUp):
        return _catch_up_rows(tx.inner, state, params, ids)
    for name, child, child_state in tx.inside(state):
        params, child_state = _caught_up(child, child_state, params, ids)
        new = {name: child_state}
        is_dict = isinstance(state, Mapping)
        state = {**state, **new} if is_dict else state._replace(**new)
    return params, state


def _catch_up_rows(
    inner: GradientTransformation, state: OptState, params: Params, ids: Any
) -> tuple[Params, OptState]:
    named = tree.leaves_with_names(params, none=True)
    treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
    last = treedef.flatten_up_to(state.last)
    rows = {
        i: _zero_gradient(p, None if ids is None else ids[path])
        for i, (path, p) in enumerate(named)
        if last[i] is not None and (ids is None or path in ids)
    }
    leaves = [leaf for _, leaf in named]
    progress = last, state.count, state.inner_state
    leaves, inner_state = replay(inner, treedef, leaves, rows, *progress)
    for i, g in rows.items():
        last[i] = g.scattered(last[i], state.count)
    state = state._replace(last=treedef.unflatten(last), inner_state=inner_state)
    return treedef.unflatten(leaves), state


def _shape_per_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *[1] * (len(shape) - 1))


def _zero_steps(table: Any) -> jax.Array:
    return filled(table, 0, jnp.int32, tuple(range(1, np.ndim(table))))


def _as_rows(g: Any) -> RowSparse:
    """Return the touched rows of a gradient; a dense gradient touches all."""
    if is_rows(g):
        return g.coalesced()
    return RowSparse(jnp.arange(len(g), dtype=jnp.int32), g, len(g))


def _zero_gradient(table: Any, ids: Any) -> RowSparse:
    """Return a zero gradient that touches the rows ``ids``; None means all rows."""
    if ids is None:
        return _as_rows(jnp.zeros_like(table))
    flat = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(ids)])
    rows = jnp.zeros((len(flat), *table.shape[1:]), table.dtype)
    return RowSparse(flat, rows, len(table)).coalesced()


def _with_missed_steps(u: RowSparse, old: Any, current: Any) -> RowSparse:
    """Return the update from the old parameters: the missed steps, then ``u``."""
    wide = tree.compute_dtype(current.dtype)
    missed = u.gathered(current).astype(wide) - u.gathered(old).astype(wide)
    rows = (u.rows.astype(wide) + missed).astype(u.dtype)
    rows = jnp.where(u.is_row, rows, 0)
    return RowSparse(u.ids, rows, u.num_rows)
