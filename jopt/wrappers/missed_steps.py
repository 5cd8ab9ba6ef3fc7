"""Steps that rows of a table have missed, taken later; for `catch_up`."""

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


def replayed(
    inner: GradientTransformation,
    treedef: Any,
    params: list[Any],
    rows: dict[int, RowSparse],
    last: list[Any],
    count: jax.Array,
    state: OptState,
) -> tuple[list[Any], OptState]:
    """The parameters and the state after the steps that some rows have missed.

    Args:
      inner: The transformation that takes the steps.
      treedef: The structure of the parameters.
      params: The parameters.
      rows: The rows of tables, as gradients, by the places of these among ``params``.
      last: The step that each row of a table is at.
      count: The steps so far.
      state: The state of ``inner``.

    Returns:
      ``(params, state)``; the scalars of the state are what they were.
    """
    if not rows:
        return params, state
    done = {
        i: jnp.where(g.ids < g.num_rows, g.gathered(last[i]).reshape(-1), count)
        for i, g in rows.items()
    }

    def with_tables(tables):
        return treedef.unflatten(tables.get(i, p) for i, p in enumerate(params))

    def step(carry):
        s, tables, own = carry  # s steps before this one
        zeros: list[Any] = [None] * len(params)
        for i, g in rows.items():
            ids = jnp.where(done[i] <= s, g.ids, -1)
            zeros[i] = RowSparse(ids, jnp.zeros_like(g.rows), g.num_rows)
        now = with_tables(tables)
        updates, own = inner.update(treedef.unflatten(zeros), _at(inner, own, s), now)
        new = treedef.flatten_up_to(apply_updates(now, updates))
        return s + 1, {i: new[i] for i in tables}, own

    first = functools.reduce(
        jnp.minimum, [jnp.min(x, initial=count) for x in done.values()]
    )
    _, tables, own = jax.lax.while_loop(
        lambda carry: carry[0] < count,
        step,
        (first, {i: params[i] for i in rows}, state),
    )
    state = _slots_of(inner, own, state)
    return [tables.get(i, p) for i, p in enumerate(params)], state


def members(inner: GradientTransformation) -> Mapping[str, GradientTransformation]:
    """The members of a chain by name; what is no chain is its only one."""
    return inner.children if isinstance(inner, Chain) else {"": inner}


def check_member(member: GradientTransformation) -> None:
    """Raise if a step of a member depends on more than what can be told later."""
    if not isinstance(member, Leafwise):
        problem = "is not leafwise"
    elif lost := member.declaration.inputs - {"t", "count"}:
        problem = f"computes its scalars from {', '.join(sorted(lost))}"
    else:
        return
    raise TypeError(
        f"catch_up cannot take a missed step of {member.name} later: it {problem}. "
        "Inside may be what needs the step and hyperparameters only; what looks at the "
        "gradients can stand before catch_up in a chain"
    )


def _states(inner: GradientTransformation, own: OptState) -> Mapping[str, OptState]:
    return own if isinstance(inner, Chain) else {"": own}


def _each(inner: GradientTransformation, f: Any, *states: OptState) -> OptState:
    """``f(member, *its states)`` for every member with a state."""
    columns = [_states(inner, own) for own in states]
    new = {
        name: f(members(inner)[name], *(column[name] for column in columns))
        for name in columns[0]
    }
    return new if isinstance(inner, Chain) else new[""]


def _at(inner: GradientTransformation, own: OptState, count: jax.Array) -> OptState:
    """The state at another step."""

    def at(member, own):
        counts = "count" in getattr(own, "_fields", ())
        return own._replace(count=count) if counts else own

    return _each(inner, at, own)


def _slots_of(
    inner: GradientTransformation, own: OptState, scalars: OptState
) -> OptState:
    """A state with the slots of one and the scalars of another."""

    def put(member, own, old):
        slots = {name: getattr(own, name) for name in member.declaration.slots}
        return old._replace(**slots) if slots else old

    return _each(inner, put, own, scalars)
