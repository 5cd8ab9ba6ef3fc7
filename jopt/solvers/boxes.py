"""The directions of L-BFGS-B: towards the minimum of the model within the box.

With the last m steps ``S`` and changes of the gradient ``Y``, with L and D the strict
lower triangle and the diagonal of ``S^T Y``, the Hessian is

    B = theta I - W M W^T,   W = [Y  theta S],   M = [-D       L^T     ]^-1
                                                     [ L   theta S^T S ]

1. The generalized Cauchy point is the first local minimum of the quadratic model along
   the projected gradient ``P(x - t g)``, a line with a bend wherever an element reaches
   its bound.
2. The elements that are at no bound there go on to the minimum of the model among
   them. If that is outside of the box, it is projected into it; if the projection does
   not lead downhill, the way from the Cauchy point ends where it leaves the box.

Byrd, Lu, Nocedal & Zhu, "A limited memory algorithm for bound constrained
optimization", 1995. The projection is that of Morales & Nocedal, "Remark on algorithm
778", 2011.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jopt.solvers.descent import Directions
from jopt.solvers.quasi_newton import written


class Memory(NamedTuple):
    """The last steps and changes. What is empty, or forgotten, has age 0."""

    rows: jax.Array  # (2m, n), s and y in turns
    steps: jax.Array  # (m, m), S^T S
    across: jax.Array  # (m, m), S^T Y
    age: jax.Array  # (m,), the number of the pair in this slot
    theta: jax.Array  # y . y / s . y of the newest pair


class Model(NamedTuple):
    """The Hessian: ``B v = theta v - W (M (W^T v))``."""

    wide: jax.Array  # (2m, n), W^T = [Y^T; theta S^T]
    middle: jax.Array  # (2m, 2m), M
    theta: jax.Array


def lbfgsb_directions(m: int, box: tuple[jax.Array, jax.Array]) -> Directions:
    """The directions of L-BFGS-B with the last ``m`` steps, within a box."""

    def start(x):
        square = jnp.zeros((m, m), x.dtype)
        return Memory(
            rows=jnp.zeros((2 * m, x.size), x.dtype),
            steps=square,
            across=square,
            age=jnp.zeros(m, jnp.int32),
            theta=jnp.ones((), x.dtype),
        )

    def following(memory, x, grad, step, change, slot, age, keep, forget):
        rows = written(memory.rows, slot, step, change, keep)
        step_by = (rows @ step).reshape(m, 2)
        change_by = (rows @ change).reshape(m, 2)
        here = jnp.arange(m, dtype=slot.dtype) == slot
        steps = jnp.where(here[None, :], step_by[:, 0][:, None], memory.steps)
        steps = jnp.where(here[:, None], step_by[:, 0][None, :], steps)
        across = jnp.where(here[None, :], change_by[:, 0][:, None], memory.across)
        across = jnp.where(here[:, None], step_by[:, 1][None, :], across)
        theta = change_by[slot, 1] / change_by[slot, 0]
        ages = jnp.where(keep & here, age, memory.age)
        memory = Memory(
            rows=rows,
            steps=jnp.where(keep, steps, memory.steps),
            across=jnp.where(keep, across, memory.across),
            age=jnp.where(forget, 0, ages),
            theta=jnp.where(forget, 1, jnp.where(keep, theta, memory.theta)),
        )
        model = _model(memory, m)
        cauchy, to_cauchy = _cauchy_point(model, x, grad, *box)
        end = _subspace_minimum(model, x, grad, cauchy, to_cauchy, *box)
        return memory, end - x

    return Directions(m, start, following)


def _model(memory: Memory, m: int) -> Model:
    age, theta = memory.age, memory.theta
    live = age > 0
    both = live[:, None] & live[None, :]
    identity = jnp.eye(m, dtype=theta.dtype)
    across = jnp.where(both, memory.across, 0)
    lower = jnp.where(age[:, None] > age[None, :], across, 0)
    diagonal = jnp.sum(identity * across, axis=0)
    diagonal = jnp.where(live, diagonal, 1)
    # M by blocks: K = theta S^T S + L D^-1 L^T is positive definite.
    scaled = lower / diagonal[None, :]
    k = jnp.where(both, theta * memory.steps, identity) + scaled @ lower.T
    # Cholesky's factor of a matrix with a diagonal of ones is the most exact one.
    scale = lax.rsqrt(jnp.sum(identity * k, axis=0))
    scale = scale[:, None] * scale[None, :]
    factor = jnp.linalg.cholesky(k * scale, symmetrize_input=False)
    half = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    k_inverse = (half.T @ half) * scale
    side = scaled.T @ k_inverse  # D^-1 L^T K^-1
    top = side @ scaled - identity / diagonal[None, :]
    middle = jnp.concatenate(
        [
            jnp.concatenate([top, side], axis=1),
            jnp.concatenate([side.T, k_inverse], axis=1),
        ]
    )
    alive = jnp.concatenate([live, live])
    middle = jnp.where(alive[:, None] & alive[None, :], middle, 0)
    pairs = memory.rows.reshape(m, 2, -1)
    wide = jnp.concatenate([pairs[:, 1], theta * pairs[:, 0]])
    return Model(wide, middle, theta)


class _Path(NamedTuple):
    """Where the projected gradient has been followed to."""

    time: jax.Array
    left: jax.Array  # (n,) when each element reaches its bound, infinite if it has
    slope: jax.Array  # of the model along the path
    curvature: jax.Array
    p: jax.Array  # (2m,), W^T d of the direction d of this piece
    c: jax.Array  # (2m,), W^T (x(t) - x)


def _cauchy_point(
    model: Model, x: jax.Array, grad: jax.Array, lower: jax.Array, upper: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The first minimum of the model along ``P(x - t g)``, and W^T of the way there."""
    wide, middle, theta = model
    room = jnp.where(grad < 0, x - upper, x - lower)
    ends = jnp.where(grad == 0, jnp.inf, room / grad)
    d = jnp.where(ends > 0, -grad, jnp.zeros_like(grad))
    square = jnp.vdot(d, d)
    p = wide @ d
    start = _Path(
        time=jnp.zeros_like(theta),
        left=jnp.where(ends > 0, ends, jnp.inf),
        slope=-square,
        curvature=theta * square - p @ (middle @ p),
        p=p,
        c=jnp.zeros_like(p),
    )
    # The curvature must not vanish by rounding.
    least = float(jnp.finfo(x.dtype).eps) * theta * square

    def further(path):
        """How far the minimum is on the line of this piece."""
        return jnp.maximum(-path.slope / path.curvature, 0)

    def bends_first(path):
        to_bend = jnp.min(path.left) - path.time
        return (path.slope < 0) & (further(path) >= to_bend)

    def bend(path):
        i = jnp.argmin(path.left)
        time = path.left[i]
        passed = time - path.time
        c = path.c + passed * path.p
        g, w = grad[i], lax.dynamic_slice_in_dim(wide, i, 1, axis=1)[:, 0]
        z = jnp.where(g < 0, upper[i], lower[i]) - x[i]
        by_w = middle @ w
        slope = path.slope + passed * path.curvature
        slope = slope + g * (g + theta * z - by_w @ c)
        curvature = path.curvature - g * (
            theta * g + 2 * (by_w @ path.p) + g * (by_w @ w)
        )
        return _Path(
            time=time,
            left=path.left.at[i].set(jnp.inf),
            slope=slope,
            curvature=jnp.maximum(curvature, least),
            p=path.p + g * w,
            c=c,
        )

    end = lax.while_loop(bends_first, bend, start)
    rest = jnp.where(end.slope < 0, further(end), 0)
    time = end.time + rest
    bound = jnp.where(grad < 0, upper, lower)
    point = jnp.where(ends > time, x + time * d, bound)
    point = jnp.where(d == 0, x, point)
    return point, end.c + rest * end.p


def _subspace_minimum(
    model: Model,
    x: jax.Array,
    grad: jax.Array,
    cauchy: jax.Array,
    to_cauchy: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
) -> jax.Array:
    """The minimum of the model among the elements that are free at the Cauchy point."""
    wide, middle, theta = model
    free = (cauchy > lower) & (cauchy < upper)
    slope = grad + theta * (cauchy - x) - (middle @ to_cauchy) @ wide
    slope = jnp.where(free, slope, 0)
    free_wide = jnp.where(free[None, :], wide, 0)
    v = middle @ (free_wide @ slope)
    inner = jnp.eye(len(middle), dtype=x.dtype)
    inner = inner - middle @ (free_wide @ free_wide.T) / theta
    v = jnp.linalg.solve(inner, v)
    way = -(slope + (v @ free_wide) / theta) / theta
    way = jnp.where(free, way, 0)

    projected = jnp.clip(cauchy + way, lower, upper)
    ahead = jnp.where(way > 0, upper - cauchy, lower - cauchy)
    inside = jnp.min(jnp.where(way == 0, jnp.inf, ahead / way))
    shortened = cauchy + jnp.minimum(1, inside) * way
    downhill = jnp.vdot(projected - x, grad) <= 0
    end = jnp.where(downhill, projected, shortened)
    return jnp.where(jnp.all(jnp.isfinite(end)), end, cauchy)
