"""Derivatives of a solution, by the implicit function theorem.

At a minimum the gradient ``g(x, args)`` is zero, however the solver went there. So

    dx / dargs = -H^-1 dg / dargs,   H = dg / dx

for the elements that are free; one at a bound moves with the bound. Nothing is
differentiated through the iterations, and nothing is computed unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.solvers.results import MinimizeResult


DENSE = 512  # elements up to which the Hessian is made, and factorized


def with_derivatives(
    solve: Callable[..., MinimizeResult],
    fun: Callable[..., Any],
    evaluate: Callable[..., Any] | None = None,
) -> Callable[..., MinimizeResult]:
    """Give a solver derivatives with respect to what it solves for.

    Args:
      solve: ``solve(x, args, box, numbers) -> result`` of vectors. ``box`` is
        ``(lower, upper)``, or None; ``numbers`` say when to stop.
      fun: ``fun(x, args) -> (value, aux)``, which is minimized.
      evaluate: A better ``jax.value_and_grad(fun, has_aux=True)``, if there is one.

    Returns:
      The same function. Where it starts and when it stops have no derivatives.
    """
    solution = jax.custom_jvp(solve)
    if evaluate is None:
        evaluate = jax.value_and_grad(fun, has_aux=True)

    @solution.defjvp
    def _(primals, tangents):
        _, args, box, _ = primals
        _, args_dot, box_dot, _ = tangents
        result = solution(*primals)
        x = result.params

        def gradient(x, args):
            return evaluate(x, args)[1]

        def hessian(v):
            return jax.jvp(lambda x: gradient(x, args), (x,), (v,))[1]

        # The gradient moves by this where x stays.
        moved = jax.jvp(lambda args: gradient(x, args), (args,), (args_dot,))[1]
        at_lower = at_upper = jnp.zeros(x.shape, bool)
        wanted = -moved
        if box is not None:
            at_lower = (x <= box[0]) & (result.grad > 0) | (box[0] == box[1])
            at_upper = (x >= box[1]) & (result.grad < 0) & ~at_lower
            wanted = jnp.where(at_lower, box_dot[0], wanted)
            wanted = jnp.where(at_upper, box_dot[1], wanted)
        x_dot = _solved(hessian, ~(at_lower | at_upper), wanted)
        (value_dot, aux_dot) = jax.jvp(fun, (x, args), (x_dot, args_dot))[1]
        none: dict[str, Any] = {
            name: np.zeros(np.shape(getattr(result, name)), jax.dtypes.float0)
            for name in ("converged", "status", "iterations", "evaluations")
        }
        grad_dot = moved + hessian(x_dot)
        return result, MinimizeResult(x_dot, value_dot, grad_dot, aux=aux_dot, **none)

    return solution


def _solved(
    hessian: Callable[[jax.Array], jax.Array], free: jax.Array, wanted: jax.Array
) -> jax.Array:
    """The v that is as wanted at a bound, with ``H v`` as wanted where it is free."""

    def at_bound(v):
        return jnp.where(free, jnp.zeros_like(v), v)

    def among_free(v):
        return jnp.where(free, v, jnp.zeros_like(v))

    def product(v):
        return jnp.where(free, hessian(v), v)

    def inverse(v):
        """Of the Hessian of the free elements, with the identity for the others."""

        def of(v):
            return jnp.where(free, hessian(among_free(v)), v)

        if v.size <= DENSE:
            identity = jnp.eye(v.size, dtype=v.dtype)
            return jnp.linalg.solve(jax.vmap(of, out_axes=1)(identity), v)
        return jax.scipy.sparse.linalg.cg(of, v, tol=_small(v))[0]

    def solve(_, b):
        fixed = at_bound(b)
        return inverse(among_free(b - hessian(fixed)) + fixed)

    def solve_transpose(_, b):
        v = inverse(among_free(b))
        return among_free(v) + at_bound(b - hessian(among_free(v)))

    return jax.lax.custom_linear_solve(product, wanted, solve, solve_transpose)


def _small(v: jax.Array) -> float:
    return 10 * float(jnp.finfo(v.dtype).eps)
