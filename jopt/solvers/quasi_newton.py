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
    """The last steps and changes. What is empty, or forgotten, is zero in `inverse`."""

    rows: jax.Array  # (2m, n), S^T above Y^T
    inverse: jax.Array  # (m, m), R^-1
    products: jax.Array  # (m, m), Y^T Y
    diagonal: jax.Array  # (m,), of S^T Y
    gamma: jax.Array  # s . y / y . y of the newest step
    slot: jax.Array  # int32, where the next one goes


def lbfgs_directions(m: int, box: None = None) -> Directions:
    """The directions ``-H g`` of L-BFGS with the last ``m`` steps."""
    del box

    def start(x):
        zeros = jnp.zeros((m, m), x.dtype)
        return Memory(
            rows=jnp.zeros((2 * m, x.size), x.dtype),
            inverse=zeros,
            products=zeros,
            diagonal=zeros[0],
            gamma=jnp.ones((), x.dtype),
            slot=jnp.zeros((), jnp.int32),
        )

    def forget(memory):
        return memory._replace(
            inverse=jnp.zeros_like(memory.inverse), gamma=jnp.ones_like(memory.gamma)
        )

    def is_empty(memory):
        return ~jnp.any(memory.inverse != 0)

    def following(memory, x, grad, step, change, keep):
        del x
        rows, slot = memory.rows, memory.slot
        rows = written(rows, slot, step, keep)
        rows = written(rows, slot + m, change, keep)
        by_grad, by_change = (rows @ jnp.stack([grad, change], axis=1)).T

        here = jnp.arange(m) == slot
        rho, square = by_change[slot], by_change[m + slot]
        others = jnp.where(here[:, None] | here[None, :], 0, memory.inverse)
        column = jnp.where(here, 1, -(others @ by_change[:m])) / rho
        inverse = others + jnp.where(here[None, :], column[:, None], 0)
        across = by_change[m:]
        products = jnp.where(here[None, :], across[:, None], memory.products)
        products = jnp.where(here[:, None], across[None, :], products)
        memory = Memory(
            rows=rows,
            inverse=jnp.where(keep, inverse, memory.inverse),
            products=jnp.where(keep, products, memory.products),
            diagonal=jnp.where(keep & here, rho, memory.diagonal),
            gamma=jnp.where(keep, rho / square, memory.gamma),
            slot=jnp.where(keep, (slot + 1) % m, slot),
        )
        a = memory.inverse @ by_grad[:m]
        gamma = memory.gamma
        inside = memory.diagonal * a + gamma * (memory.products @ a - by_grad[m:])
        weights = jnp.concatenate([-(inside @ memory.inverse), gamma * a])
        return memory, weights @ rows - gamma * grad

    return Directions(start, following, forget, is_empty)


def written(
    rows: jax.Array, slot: jax.Array, row: jax.Array, keep: jax.Array
) -> jax.Array:
    """The rows with one in a slot, if it is to be kept."""
    old = lax.dynamic_slice_in_dim(rows, slot, 1)
    new = jnp.where(keep, row[None], old)
    return lax.dynamic_update_slice_in_dim(rows, new, slot, 0)
