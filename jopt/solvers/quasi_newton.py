"""The directions of L-BFGS, from the inverse Hessian in compact form.

With the last m steps ``S = [s_1 … s_m]`` and changes of the gradient ``Y``, with R the
upper triangle of ``S^T Y`` and D its diagonal:

    H = gamma I + [S  Y] [ R^-T (D + gamma Y^T Y) R^-1   -gamma R^-T ] [S^T]
                         [       -gamma R^-1                   0     ] [Y^T]

It is the matrix of the two loops, but takes two products with all of ``[S Y]``, the
first of which serves the gradient and the newest change of it together. Numbers of
size m x m are kept from step to step, and so is ``R^-1``: the inverse of a triangle gets
a new last column, and what is left of it without the first row and column is the inverse
of what is left of the triangle. So the columns may be in any order, and the newest one
goes where the oldest one was.

Byrd, Nocedal & Schnabel, "Representations of quasi-Newton matrices and their use in
limited memory methods", 1994, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jopt.solvers.descent import Directions


class Memory(NamedTuple):
    """The last steps and changes. What is empty, or forgotten, is zero in `small`."""

    rows: jax.Array  # (m, 2, n), the pairs s and y
    small: jax.Array  # (2, m, m), R^-1 and Y^T Y
    slot: jax.Array  # int32, where the next pair goes


def lbfgs_directions(m: int, box: None = None) -> Directions:
    """The directions ``-H g`` of L-BFGS with the last ``m`` steps."""
    del box

    def start(x):
        return Memory(
            rows=jnp.zeros((m, 2, x.size), x.dtype),
            small=jnp.zeros((2, m, m), x.dtype),
            slot=jnp.zeros((), jnp.int32),
        )

    def following(memory, x, grad, step, change, keep, forget):
        n, slot = x.size, memory.slot
        rows = written(memory.rows, slot, jnp.stack([step, change]), keep)
        pair = jnp.stack([grad, change], axis=1)
        by = (rows.reshape(2 * m, n) @ pair).reshape(m, 2, 2)
        here = jnp.arange(m) == slot

        # The newest column of R^-1, and the newest row and column of Y^T Y.
        change_by_s, change_by_y = by[:, 0, 1], by[:, 1, 1]
        others = jnp.where(here[:, None] | here[None, :], 0, memory.small[0])
        column = jnp.where(here, 1, -(others @ change_by_s)) / change_by_s[slot]
        inverse = jnp.where(here[None, :], column[:, None], others)
        products = jnp.where(here[None, :], change_by_y[:, None], memory.small[1])
        products = jnp.where(here[:, None], change_by_y[None, :], products)
        small = jnp.where(keep, jnp.stack([inverse, products]), memory.small)
        small = jnp.where(forget, 0, small)
        slot = jnp.where(keep, (slot + 1) % m, slot)

        # D is the inverse of the diagonal of R^-1; gamma is that of the newest pair.
        inverse, products = small
        scale = jnp.diagonal(inverse)
        live = scale != 0
        newest = (slot - 1) % m
        gamma = 1 / (scale[newest] * products[newest, newest])
        gamma = jnp.where(live[newest], gamma, 1)
        a = inverse @ by[:, 0, 0]
        inside = jnp.where(live, a / jnp.where(live, scale, 1), 0)
        inside = inside + gamma * (products @ a - by[:, 1, 0])
        weights = jnp.stack([-(inside @ inverse), gamma * a], axis=1)
        direction = weights.reshape(2 * m) @ rows.reshape(2 * m, n) - gamma * grad
        return Memory(rows, small, slot), direction

    return Directions(start, following)


def written(
    rows: jax.Array, slot: jax.Array, row: jax.Array, keep: jax.Array
) -> jax.Array:
    """The rows with one in a slot, if it is to be kept."""
    old = lax.dynamic_slice_in_dim(rows, slot, 1)
    new = jnp.where(keep, row[None], old)
    return lax.dynamic_update_slice_in_dim(rows, new, slot, 0)
