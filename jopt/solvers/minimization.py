"""``minimize``: a function of any tree, by L-BFGS, within bounds or without."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jopt.solvers import descent
from jopt.solvers.boxes import lbfgsb_directions
from jopt.solvers.compilation import compiled
from jopt.solvers.derivatives import with_derivatives
from jopt.solvers.problem import (
    Vector,
    checked_function,
    not_traced,
    one_value,
    tolerance,
)
from jopt.solvers.quasi_newton import lbfgs_directions
from jopt.solvers.results import MinimizeResult, Status
from jopt.values import arguments
from jopt.values.arguments import abbreviated


METHODS = {"lbfgs": lbfgs_directions, "lbfgsb": lbfgsb_directions}


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    method: str | None = None,
    bounds: tuple[Any, Any] | None = None,
    tol: float | None = None,
    gtol: float | None = None,
    ftol: float | None = None,
    max_iterations: int = 15_000,
    memory: int = 10,
    callback: Callable[[MinimizeResult], Any] | None = None,
    has_aux: bool = False,
) -> MinimizeResult:
    """Minimize a function of a tree by L-BFGS, or L-BFGS-B within bounds.

        x <- x + t d,   d = -H g

    with H from the last ``memory`` steps and changes of the gradient, and t by the line
    search of Moré and Thuente. The whole run is compiled as one loop, which contains
    value and gradient once, and can itself be inside ``jit`` and ``vmap``.

    The result has derivatives with respect to ``args`` and bounds, by the implicit
    function theorem: they need one solution of a linear system with the Hessian, and
    are right where the run has converged, to a strict minimum, with a ``gtol`` small
    enough. Above 512 elements the system is solved by conjugate gradients.

    Args:
      fun: A function of params and ``args`` that returns one number.
      x0: The parameters to start at: any tree of real arrays.
      args: Further arguments of the function, such as data. Another call with the same
        function and arrays of the same shapes compiles nothing.
      method: ``"lbfgs"`` or ``"lbfgsb"``; by default the second with bounds, the first
        without.
      bounds: ``(lower, upper)``. Each is a number, a tree like ``x0``, whose leaves may
        broadcast to those of x0, or None; the same for a leaf.
      tol: ``gtol`` and ``ftol``, where they are not given.
      gtol: It has converged once no element of the gradient is larger; within bounds,
        of ``P(x - g) - x`` with the projection P. By default 1e-5.
      ftol: It has converged once a step reduces the value by less, relative to the
        larger of 1 and the value. By default 2.2e-9, or what float32 can reach.
      max_iterations: The largest number of steps.
      memory: The number m of steps that are remembered.
      callback: A function of the `MinimizeResult` so far, called after each step. If
        it returns True, the run ends. A run with a callback is not one compiled loop,
        but one call for each step.
      has_aux: Whether ``fun`` returns ``(value, aux)``. The result has the aux of its
        params.

    Returns:
      A `MinimizeResult`: ``params``, ``value``, ``grad``, whether it has ``converged``,
      the ``message`` why it stopped, ``iterations`` and ``evaluations``.

    Raises:
      ValueError: A number or word is not allowed, bounds do not fit x0, or a lower
        bound is above its upper bound.
      TypeError: ``fun`` does not return one number, or a leaf of x0 cannot be
        optimized.

    Liu & Nocedal, "On the limited memory BFGS method for large scale optimization",
    1989. Byrd, Lu, Nocedal & Zhu, "A limited memory algorithm for bound constrained
    optimization", 1995. The tests of convergence, and most numbers, are those of
    ``scipy.optimize.minimize(method="L-BFGS-B")``.

    >>> import jopt
    >>> def rosenbrock(x, b):
    ...     return jnp.sum(b * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> result = jopt.minimize(rosenbrock, jnp.zeros(5), (100.0,), tol=1e-3)
    >>> result.params.round(2)
    Array([1., 1., 1., 1., 1.], dtype=float32)
    >>> result = jopt.minimize(rosenbrock, jnp.zeros(5), (100.0,), bounds=(None, 0.5))
    >>> result.params.round(2)
    Array([0.5 , 0.26, 0.08, 0.02, 0.  ], dtype=float32)
    """
    checked_function("minimize", "fun", fun, args)
    if method is None:
        method = "lbfgs" if bounds is None else "lbfgsb"
    arguments.one_of(METHODS, method=method)
    if method == "lbfgs" and bounds is not None:
        raise ValueError('method="lbfgs" has no bounds; use method="lbfgsb"')
    arguments.at_least(1, memory=arguments.whole("memory", memory))
    arguments.at_least(
        1, max_iterations=arguments.whole("max_iterations", max_iterations)
    )
    arguments.flag("has_aux", has_aux)
    vector = Vector(x0, "minimize")
    bounds = _checked_bounds(vector, bounds) if method == "lbfgsb" else None
    gtol, ftol = (tol if x is None else x for x in (gtol, ftol))
    tests = descent.Tests(
        gtol=tolerance("gtol", gtol, 1e-5, vector.dtype),
        ftol=tolerance("ftol", ftol, 2.2e-9, vector.dtype),
        max_iterations=max_iterations,
    )
    given = (fun, method, memory, has_aux)
    if callback is None:
        return _solve(given, x0, args, bounds, tests)
    not_traced(x0)
    return _step_by_step(given, x0, args, bounds, tests, callback)


def _checked_bounds(vector: Vector, bounds: Any) -> tuple[Any, Any]:
    if bounds is None:
        bounds = (None, None)
    if not (isinstance(bounds, tuple | list) and len(bounds) == 2):
        raise ValueError(
            "bounds must be (lower, upper), each a number, a tree like x0 or None, got "
            f"{abbreviated(bounds)}"
        )
    lower, upper = (
        vector.spread(x, name)
        for x, name in zip(bounds, ("lower", "upper"), strict=True)
    )
    vector.in_order(lower, upper)
    return lower, upper


class _Problem:
    """What is compiled: a function of vectors, and how to go on from a point."""

    def __init__(self, given: tuple[Any, ...], x0: Any):
        self.fun, method, memory, self.has_aux = given
        self.vector = Vector(x0, "minimize")
        self.directions = functools.partial(METHODS[method], memory)

    def value(self, x, args):
        """Value and aux at a vector."""
        out = self.fun(self.vector.tree(x), *args)
        value, aux = one_value(out, "fun", self.has_aux)
        return value.astype(self.vector.dtype), aux

    def evaluate(self, x, args):
        """((value, aux), grad) at a vector.

        The gradient is taken with respect to the tree: that with respect to the vector
        would be a sum of as many vectors as there are leaves.
        """

        def value(params):
            value, aux = one_value(self.fun(params, *args), "fun", self.has_aux)
            return value.astype(self.vector.dtype), aux

        out, grads = jax.value_and_grad(value, has_aux=True)(self.vector.tree(x))
        return out, self.vector.of(grads)

    def start(self, x, args, box):
        x = x if box is None else jnp.clip(x, *box)
        aux = None
        if self.has_aux:
            aux = jax.eval_shape(self.value, x, args)[1]
        return descent.start(aux, self.directions(box), x)

    def one(self, args, box, tests):
        """One pass of the loop."""
        evaluate = functools.partial(self.evaluate, args=args)
        return functools.partial(
            descent.advance, evaluate, self.directions(box), box, tests
        )

    def as_tree(self, found: MinimizeResult) -> MinimizeResult:
        tree = self.vector.tree
        return found._replace(params=tree(found.params), grad=tree(found.grad))


@functools.partial(compiled, static_argnums=0)
def _solve(
    whole: Callable[..., Any],
    given: tuple[Any, ...],
    x0: Any,
    args: tuple[Any, ...],
    box: tuple[jax.Array, jax.Array] | None,
    tests: descent.Tests,
) -> MinimizeResult:
    fun, *rest = given
    # What the function closes over may be differentiated, too.
    vector = Vector(x0, "minimize")
    x0 = vector.tree(vector.of(x0))
    fun, closed_over = jax.closure_convert(fun, x0, *args)
    problem = _Problem((fun, *rest), x0)

    def solve(x, args, box, tests):
        loop = functools.partial(descent.run, problem.one(args, box, tests))
        return descent.result(whole(loop)(problem.start(x, args, box)))

    solve = with_derivatives(solve, problem.value, problem.evaluate)
    x = problem.vector.of(x0)
    return problem.as_tree(solve(x, (*args, *closed_over), box, tests))


def _step_by_step(
    given: tuple[Any, ...],
    x0: Any,
    args: tuple[Any, ...],
    box: tuple[jax.Array, jax.Array] | None,
    tests: descent.Tests,
    callback: Callable[[MinimizeResult], Any],
) -> MinimizeResult:
    state = None
    while True:
        state, found = _iterate(given, x0, args, box, tests, state)
        if found.status != Status.RUNNING:
            return found
        if callback(found) is True:
            status = jnp.int32(Status.CALLBACK)
            return found._replace(status=status)


@functools.partial(compiled, static_argnums=0)
def _iterate(
    whole: Callable[..., Any],
    given: tuple[Any, ...],
    x0: Any,
    args: tuple[Any, ...],
    box: tuple[jax.Array, jax.Array] | None,
    tests: descent.Tests,
    state: descent.Descent | None,
) -> tuple[descent.Descent, MinimizeResult]:
    problem = _Problem(given, x0)
    if state is None:
        state = problem.start(problem.vector.of(x0), args, box)
    loop = functools.partial(descent.iterate, problem.one(args, box, tests))
    new = whole(loop)(state)
    return new, problem.as_tree(descent.result(new))
