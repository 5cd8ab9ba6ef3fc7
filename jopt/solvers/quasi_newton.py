"""The directions of L-BFGS, from the inverse Hessian in compact form.

With the last m steps ``S = [s_1 … s_m]`` and changes of the gradient ``Y``, with R the
upper triangle of ``S^T Y`` and D its diagonal:

    H = gamma I + [S  Y] [ R^-T (D + gamma Y^T Y) R^-1   -gamma R^-T ] [S^T]
                         [       -gamma R^-1                   0     ] [Y^T]

It is the matrix of the two loops, but takes three products with all of ``[S Y]`` and no
loop. Numbers of size m x m are kept from step to step, and so is ``R^-1``: the inverse
of a triangle gets a new last column, and what is left of it without the first row and
column is the inverse of what is left of the triangle. So the columns may be in any
order, and the newest one goes where the oldest one was.

Byrd, Nocedal & Schnabel, "Representations of quasi-Newton matrices and their use in
limited memory methods", 1994, section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt.solvers.descent import Directions


class Memory(NamedTuple):
    """The last steps and changes. What is empty, or forgotten, is zero in `inverse`."""

    rows: jax.Array  # (2m, n), s and y in turns
    inverse: jax.Array  # (m, m), R^-1
    products: jax.Array  # (m, m), Y^T Y
    gamma: jax.Array  # s . y / y . y of the newest pair


def lbfgs_directions(m: int, box: None = None) -> Directions:
    """The directions ``-H g`` of L-BFGS with the last ``m`` steps."""
    del box

    def start(x):
        square = jnp.zeros((m, m), x.dtype)
        rows = jnp.zeros((2 * m, x.size), x.dtype)
        return Memory(rows, square, square, jnp.ones((), x.dtype))

    def following(memory, x, grad, step, change, slot, age, keep, forget):
        del x, age
        rows = written(memory.rows, slot, step, change, keep)
        # Two products: XLA:CPU takes four times as long for one with both.
        grad_by = (rows @ grad).reshape(m, 2)
        change_by = (rows @ change).reshape(m, 2)
        here = jnp.arange(m, dtype=slot.dtype) == slot

        # The newest column of R^-1, and the newest row and column of Y^T Y.
        change_by_s, change_by_y = change_by[:, 0], change_by[:, 1]
        others = jnp.where(here[:, None] | here[None, :], 0, memory.inverse)
        rho = jnp.vdot(change_by_s, here.astype(rows.dtype))
        square = jnp.vdot(change_by_y, here.astype(rows.dtype))
        column = jnp.where(here, 1, -(others @ change_by_s)) / rho
        inverse = jnp.where(here[None, :], column[:, None], others)
        inverse = jnp.where(keep, inverse, memory.inverse)
        inverse = jnp.where(forget, 0, inverse)
        products = jnp.where(here[None, :], change_by_y[:, None], memory.products)
        products = jnp.where(here[:, None], change_by_y[None, :], products)
        products = jnp.where(keep, products, memory.products)
        gamma = jnp.where(keep, rho / square, memory.gamma)
        gamma = jnp.where(forget, 1, gamma)

        # D is the inverse of the diagonal of R^-1.
        scale = jnp.sum(jnp.where(np.eye(m, dtype=bool), inverse, 0), axis=0)
        a = inverse @ grad_by[:, 0]
        inside = jnp.where(scale > 0, a / scale, 0)
        inside = inside + gamma * (products @ a - grad_by[:, 1])
        weights = jnp.stack([-(inside @ inverse), gamma * a], axis=1).reshape(2 * m)
        direction = weights @ rows - gamma * grad
        return Memory(rows, inverse, products, gamma), direction

    return Directions(m, start, following)


def written(
    rows: jax.Array, slot: jax.Array, step: jax.Array, change: jax.Array, keep: Any
) -> jax.Array:
    """The rows with a pair in a slot, if it is to be kept."""
    old = lax.dynamic_slice_in_dim(rows, 2 * slot, 2)
    new = jnp.where(keep, jnp.stack([step, change]), old)
    return lax.dynamic_update_slice_in_dim(rows, new, 2 * slot, 0)
