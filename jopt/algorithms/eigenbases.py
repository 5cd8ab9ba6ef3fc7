"""What a step does to statistics and bases: averages, and refreshes when they are due.

These functions take the rows of a stack before a step, and put what is new into the
rows after it; see `matrixwise.Method`. A conditional holds all that decomposes, because
a step between two refreshes must not pay for it. It is outside of any `jax.vmap`, which
would run both of its branches.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jopt.algorithms.kronecker import (
    descending,
    eigenbasis,
    facing,
    refreshed_basis,
    rotated,
    whitened_grams,
)
from jopt.algorithms.matrixwise import KEEP, Row
from jopt.algorithms.stacks import split, spread, stacked


def averaged(rows: list[Row], new: list[Row], numbers: dict[str, jax.Array]) -> None:
    """Put the new averages of the statistics into the new rows, in place of "grams"."""
    for old, row in zip(rows, new, strict=True):
        row["statistics"] = average(old["statistics"], row.pop("grams"), numbers)


def average(statistics: Any, grams: Any, numbers: dict[str, jax.Array]) -> Any:
    """Return the new averages of the statistics."""
    return jax.tree.map(
        lambda s, x: numbers["beta"] * s + numbers["beta_rest"] * x, statistics, grams
    )


def updated_kl(
    rows: list[Row],
    new: list[Row],
    g: jax.Array,
    bases: Any,
    started: jax.Array,
    numbers: dict[str, jax.Array],
) -> Any:
    """Put KL-Shampoo's new eigenvalues into the new rows, and return its statistics."""
    eigenvalues = stacked([row["eigenvalues"] for row in rows])
    # The first step has nothing to whiten by; its bases are the identity.
    used = jax.tree.map(lambda e: jnp.where(started > 0, e, 1), eigenvalues)
    grams, seen = whitened_grams(g, bases, used)

    def average(old, new):
        # The authors bound the inverse root from above, by 10 or more.
        least = max(10, min(old.shape[-1], 4000)) ** -2.0
        later = jnp.maximum(numbers["beta"] * old + numbers["beta_rest"] * new, least)
        return jnp.where(started > 0, later, old)

    parts = split(jax.tree.map(average, eigenvalues, tuple(seen)), len(rows))
    for row, part in zip(new, parts, strict=True):
        row["eigenvalues"] = part
    return grams


def refresh_bases(
    rows: list[Row],
    new: list[Row],
    phase: jax.Array,
    moved: tuple[str, ...],
    ordered: bool,
    mesh_axis: str | None,
) -> None:
    """Put new bases into the new rows if it is time; and what is in them, turned.

    Args:
      rows, new: The rows before this step, and after.
      phase: See `matrixwise.Method`.
      moved: ``("mu", "nu")`` if they are in the basis.
      ordered: Whether to sort a basis by its eigenvalues first, and ``nu`` with it.
      mesh_axis: See `stacks.stacked`.
    """
    held = [{name: row[name] for name in moved} for row in new]
    held = [{**x, "bases": row["bases"]} for x, row in zip(held, rows, strict=True)]
    # The bases are constants to autodiff: no decomposition is differentiated.
    statistics = [lax.stop_gradient(row["statistics"]) for row in new]

    def refreshed(held, statistics):
        whole = [{**x, "statistics": s} for x, s in zip(held, statistics, strict=True)]
        return spread(lambda rows: _refreshed(rows, ordered), whole, mesh_axis)

    if jax.tree.leaves(statistics):  # else no side of these leaves has any
        held = lax.switch(
            phase,
            [
                lambda held, _: held,
                refreshed,
                lambda held, s: _decomposed(held, s, mesh_axis),
            ],
            held,
            statistics,
        )
    for row, x in zip(new, held, strict=True):
        row.update(x)


def _refreshed(rows: list[Row], ordered: bool) -> list[Row]:
    new = stacked(rows)
    s, old = new.pop("statistics"), new["bases"]
    mu, bases = new.get("mu"), old
    if ordered:
        orders = jax.tree.map(descending, s, old)
        old = jax.tree.map(lambda q, i: _in_order(q, i[:, None], 2), old, orders)
        for side, order in enumerate(orders):
            if order is not None:
                nu = new["nu"]
                new["nu"] = _in_order(nu, facing(order, side, nu), side + 1)
    new["bases"] = jax.tree.map(refreshed_basis, s, old)
    if mu is not None:
        new["mu"] = rotated(rotated(mu, bases, back=True), new["bases"])
    return split(new, len(rows))


def _in_order(x: jax.Array, order: jax.Array, axis: int) -> jax.Array:
    return jnp.take_along_axis(x, order, axis, mode="promise_in_bounds")


def _decomposed(
    held: list[Row], statistics: list[Any], mesh_axis: str | None
) -> list[Row]:
    def decomposed(statistics):
        bases = jax.tree.map(eigenbasis, stacked(statistics))
        return split(bases, len(statistics))

    parts = spread(decomposed, statistics, mesh_axis)
    return [{**row, "bases": q} for row, q in zip(held, parts, strict=True)]


def decompose(
    rows: list[Row], new: list[Row], phase: jax.Array, mesh_axis: str | None
) -> None:
    """Put eigenvectors of the statistics into the new rows if it is time."""
    bases = [{"bases": row["bases"]} for row in rows]
    statistics = [lax.stop_gradient(row["statistics"]) for row in new]
    if jax.tree.leaves(statistics):
        bases = lax.cond(
            phase == KEEP,
            lambda held, _: held,
            lambda held, s: _decomposed(held, s, mesh_axis),
            bases,
            statistics,
        )
    for row, x in zip(new, bases, strict=True):
        row.update(x)
