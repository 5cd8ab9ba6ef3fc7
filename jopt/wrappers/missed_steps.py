"""Replay of the steps that rows of a table have missed, for `catch_up`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jopt.core.apply import apply_updates
from jopt.core.chain import Chain
from jopt.core.leafwise import Leafwise
from jopt.core.transformation import GradientTransformation, OptState
from jopt.tree.row_sparse import RowSparse


def replay(
    inner: GradientTransformation,
    treedef: Any,
    params: list[Any],
    rows: dict[int, RowSparse],
    last: list[Any],
    count: jax.Array,
    state: OptState,
) -> tuple[list[Any], OptState]:
    """Take the steps that some rows have missed.

    Args:
      inner: The transformation that takes the steps.
      treedef: The structure of the parameters.
      params: The leaves of the parameters.
      rows: The rows to update, as gradients, by the table's index in ``params``.
      last: The step that each row of each table has reached.
      count: The number of steps so far.
      state: The state of ``inner``.

    Returns:
      ``(params, state)``; the scalars of the state are unchanged.
    """
    if not rows:
        return params, state
    # Padding counts as up to date, or it would make the loop start at its garbage.
    reached = {
        i: jnp.where(g.ids < g.num_rows, g.gathered(last[i]).reshape(-1), count)
        for i, g in rows.items()
    }

    def with_tables(tables):
        return treedef.unflatten(tables.get(i, p) for i, p in enumerate(params))

    def step(carry):
        s, tables, inner_state = carry  # s: number of steps before this one
        zeros: list[Any] = [None] * len(params)
        for i, g in rows.items():
            # A row that has taken this step already becomes padding: its slots must
            # not decay twice.
            ids = jnp.where(reached[i] <= s, g.ids, -1)
            zeros[i] = RowSparse(ids, jnp.zeros_like(g.rows), g.num_rows)
        current = with_tables(tables)
        updates, inner_state = inner.update(
            treedef.unflatten(zeros), _state_at(inner, inner_state, s), current
        )
        new = treedef.flatten_up_to(apply_updates(current, updates))
        return s + 1, {i: new[i] for i in tables}, inner_state

    first = functools.reduce(
        jnp.minimum, [jnp.min(x, initial=count) for x in reached.values()]
    )
    _, tables, inner_state = jax.lax.while_loop(
        lambda carry: carry[0] < count,
        step,
        (first, {i: params[i] for i in rows}, state),
    )
    state = _with_slots_of(inner, inner_state, state)
    return [tables.get(i, p) for i, p in enumerate(params)], state


def members(inner: GradientTransformation) -> Mapping[str, GradientTransformation]:
    """Return the members of a chain by name, or ``inner`` itself as the only one."""
    return inner.children if isinstance(inner, Chain) else {"": inner}


def check_member(member: GradientTransformation) -> None:
    """Raise TypeError if a missed step of a member cannot be computed later."""
    if not isinstance(member, Leafwise):
        problem = "is not leafwise"
    elif unavailable := member.declaration.inputs - {"t", "count"}:
        problem = f"computes its scalars from {', '.join(sorted(unavailable))}"
    else:
        return
    raise TypeError(
        f"catch_up cannot take a missed step of {member.name} later: it {problem}. "
        "Members of inner may depend only on the step and hyperparameters. Put members "
        "that read the gradients before catch_up in a chain"
    )


def _states(inner: GradientTransformation, state: OptState) -> Mapping[str, OptState]:
    return state if isinstance(inner, Chain) else {"": state}


def _map_members(inner: GradientTransformation, f: Any, *states: OptState) -> OptState:
    """Apply ``f(member, *member_states)`` to every member that has a state."""
    columns = [_states(inner, state) for state in states]
    new = {
        name: f(members(inner)[name], *(column[name] for column in columns))
        for name in columns[0]
    }
    return new if isinstance(inner, Chain) else new[""]


def _state_at(
    inner: GradientTransformation, state: OptState, count: jax.Array
) -> OptState:
    """Return the state with every member's count set to ``count``."""

    def set_count(member, state):
        counts = "count" in getattr(state, "_fields", ())
        return state._replace(count=count) if counts else state

    return _map_members(inner, set_count, state)


def _with_slots_of(
    inner: GradientTransformation, new: OptState, old: OptState
) -> OptState:
    """Return the old state with the slots of the new one; scalars stay."""

    def put(member, new, old):
        slots = {name: getattr(new, name) for name in member.declaration.slots}
        return old._replace(**slots) if slots else old

    return _map_members(inner, put, new, old)
