"""Least squares: ``levenberg_marquardt`` and ``gauss_newton``.

Both minimize ``f(x) = 1/2 |r(x)|^2`` by the linear model ``r(x + p) = r + J p`` at each
step, with ``J`` the Jacobian of the residuals:

    (J^T J + mu D^2) p = -J^T r

Levenberg-Marquardt chooses the damping mu by how well the model has predicted the
reduction; Gauss-Newton has no damping, and halves a step that does not reduce f.

The dense form factorizes J by QR, which does not square its condition number; D has the
largest norms of its columns so far. The matrix-free form never makes J. It solves by
conjugate gradients with products ``J v`` and ``J^T u``; D is one number, from the
curvature along the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jopt.solvers.compilation import compiled
from jopt.solvers.derivatives import with_derivatives
from jopt.solvers.problem import Vector, checked_function, tolerance
from jopt.solvers.results import MinimizeResult, Status, first_status
from jopt.values import arguments


def levenberg_marquardt(
    residual_fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    linear_solver: str = "qr",
    damping: float = 1e-3,
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    max_iterations: int | None = None,
    cg_tol: float = 1e-4,
) -> MinimizeResult:
    """Least squares by Levenberg and Marquardt's method: minimize ``1/2 |r|^2``.

        (J^T J + mu D^2) p = -J^T r
        mu <- mu max(1/3, 1 - (2 rho - 1)^3)    a step that reduces the sum is taken;
                                                rho: reduction, actual / predicted
        mu <- nu mu,  nu <- 2 nu                otherwise, and it tries again

    The result can be differentiated with respect to ``args``: see `minimize`.

    Args:
      residual_fun: A function of params and ``args`` that returns an array of
        residuals, or a tree of arrays.
      x0: The parameters to start at: any tree of real arrays.
      args: Further arguments of the function, such as data. Another call with arrays
        of the same shapes compiles nothing.
      linear_solver: ``"qr"`` makes the Jacobian and factorizes it, for few parameters;
        ``"cg"`` takes products with it only, for many.
      damping: The first mu, > 0: relative to the squared norms of the columns, or with
        ``"cg"`` to the curvature along the gradient.
      ftol: It has converged once a step reduces the sum by less than this fraction,
        as its model predicted; by default 1e-8, or what float32 can reach.
      xtol: … or is shorter than this fraction of the parameters' norm.
      gtol: … or no element of ``J^T r`` is larger than this.
      max_iterations: The largest number of steps, tried ones included; by default 100
        for each parameter, between 200 and 10,000.
      cg_tol: The relative residual at which ``"cg"`` stops.

    Returns:
      A `MinimizeResult`. ``evaluations`` counts those of the residuals.

    Raises:
      ValueError: A number is out of range.
      TypeError: The residuals are not real arrays, or a leaf of x0 cannot be optimized.

    Nielsen, "Damping parameter in Marquardt's method", 1999. Moré, "The
    Levenberg-Marquardt algorithm: implementation and theory", 1978, for D. The tests of
    convergence are those of ``scipy.optimize.least_squares``.

    >>> import jopt
    >>> t = jnp.linspace(0.0, 4.0, 50)
    >>> y = 3 * jnp.exp(-0.7 * t)
    >>> def residuals(params, t, y):
    ...     return params["scale"] * jnp.exp(-params["rate"] * t) - y
    >>> start = {"scale": jnp.float32(1.0), "rate": jnp.float32(1.0)}
    >>> result = jopt.levenberg_marquardt(residuals, start, (t, y))
    >>> print(f"{result.params['scale']:.3f} {result.params['rate']:.3f}")
    3.000 0.700
    >>> bool(result.converged)
    True
    """
    arguments.positive(damping=damping)
    numbers = {"damping": damping, "cg_tol": cg_tol}
    tests = {"ftol": ftol, "xtol": xtol, "gtol": gtol, "max_iterations": max_iterations}
    return _checked(
        "levenberg_marquardt", residual_fun, x0, args, linear_solver, numbers, tests
    )


def gauss_newton(
    residual_fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    linear_solver: str = "qr",
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    max_iterations: int | None = None,
    cg_tol: float = 1e-4,
) -> MinimizeResult:
    """Least squares by Gauss and Newton's method: minimize ``1/2 |r|^2``.

        J^T J p = -J^T r,   x <- x + t p

    with t = 1 unless the sum does not fall; then t is halved. It needs fewer steps than
    `levenberg_marquardt` close to the minimum, and can fail far from it.

    Args:
      residual_fun: A function of params and ``args`` that returns an array of
        residuals, or a tree of arrays.
      x0: The parameters to start at: any tree of real arrays.
      args: Further arguments of the function, such as data.
      linear_solver: ``"qr"`` makes the Jacobian and factorizes it, for few parameters;
        ``"cg"`` takes products with it only, for many.
      ftol: It has converged once a step reduces the sum by less than this fraction; by
        default 1e-8, or what float32 can reach.
      xtol: … or is shorter than this fraction of the parameters' norm.
      gtol: … or no element of ``J^T r`` is larger than this.
      max_iterations: The largest number of steps, halved ones included; by default 100
        for each parameter, between 200 and 10,000.
      cg_tol: The relative residual at which ``"cg"`` stops.

    Returns:
      A `MinimizeResult`. ``evaluations`` counts those of the residuals.

    Raises:
      ValueError: A number is out of range.
      TypeError: The residuals are not real arrays, or a leaf of x0 cannot be optimized.

    Nocedal & Wright, "Numerical optimization", 2006, section 10.3.

    >>> import jopt
    >>> a = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> residuals = lambda x: a @ x - jnp.array([3.0, 7.0, 11.0])
    >>> jopt.gauss_newton(residuals, jnp.zeros(2)).params.round(4)
    Array([1., 1.], dtype=float32)
    """
    tests = {"ftol": ftol, "xtol": xtol, "gtol": gtol, "max_iterations": max_iterations}
    numbers = {"damping": None, "cg_tol": cg_tol}
    return _checked(
        "gauss_newton", residual_fun, x0, args, linear_solver, numbers, tests
    )


def _checked(
    solver: str,
    residual_fun: Callable[..., Any],
    x0: Any,
    args: Any,
    linear_solver: str,
    numbers: dict[str, Any],
    tests: dict[str, Any],
) -> MinimizeResult:
    checked_function(solver, "residual_fun", residual_fun, args)
    arguments.one_of(("qr", "cg"), linear_solver=linear_solver)
    arguments.positive(cg_tol=numbers["cg_tol"])
    vector = Vector(x0, solver)
    for name in ("ftol", "xtol", "gtol"):
        tests[name] = tolerance(name, tests[name], 1e-8, vector.dtype)
    n = tests["max_iterations"]
    if n is None:
        n = min(max(200, 100 * vector.size), 10_000)
    arguments.at_least(1, max_iterations=arguments.whole("max_iterations", n))
    tests["max_iterations"] = n
    return _solve(
        residual_fun, solver, linear_solver == "cg", x0, args, {**numbers, **tests}
    )


class _Search(NamedTuple):
    """Where a search is."""

    x: jax.Array
    residuals: jax.Array
    value: jax.Array  # half the sum of their squares
    grad: jax.Array  # J^T r
    factor: Any  # of the dense form: R and Q^T r of the Jacobian, and D
    control: jax.Array  # mu, or the length t of a step
    growth: jax.Array  # nu
    tried: jax.Array
    taken: jax.Array
    status: jax.Array


@functools.partial(compiled, static_argnums=(0, 1, 2))
def _solve(
    whole: Callable[..., Any],
    residual_fun: Callable[..., Any],
    solver: str,
    by_products: bool,
    x0: Any,
    args: tuple[Any, ...],
    numbers: dict[str, Any],
) -> MinimizeResult:
    vector = Vector(x0, solver)

    def plain(x, *args):
        return _residuals(residual_fun(vector.tree(x), *args), vector.dtype)

    x = vector.of(x0)
    # What the function closes over may be differentiated, too.
    residuals, closed_over = jax.closure_convert(plain, x, *args)
    args = (*args, *closed_over)

    def half_square(x, args):
        r = residuals(x, *args)
        return jnp.vdot(r, r) / 2, None

    def solve(x, args, box, numbers):
        del box
        return _search(
            whole, lambda x: residuals(x, *args), solver, by_products, numbers, x
        )

    found = with_derivatives(solve, half_square)(x, args, None, numbers)
    return found._replace(
        params=vector.tree(found.params), grad=vector.tree(found.grad)
    )


def _residuals(out: Any, dtype: Any) -> jax.Array:
    """The residuals as one vector."""
    parts = [jnp.asarray(x) for x in jax.tree.leaves(out)]
    for x in parts:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                "residual_fun must return arrays of floating point numbers, got "
                f"{jax.typeof(x)}"
            )
    if not sum(x.size for x in parts):
        raise TypeError(f"residual_fun must return residuals, got {out!r}")
    return jnp.concatenate([x.ravel().astype(dtype) for x in parts])


def _search(
    whole: Callable[..., Any],
    residuals: Callable[[jax.Array], jax.Array],
    solver: str,
    by_products: bool,
    numbers: dict[str, Any],
    x: jax.Array,
) -> MinimizeResult:
    damped = solver == "levenberg_marquardt"
    eps = float(jnp.finfo(x.dtype).eps)
    ftol, xtol, gtol = (
        jnp.asarray(numbers[name], x.dtype) for name in ("ftol", "xtol", "gtol")
    )

    def model(x, scale):
        """Residuals, gradient, and what the next steps need of the Jacobian."""
        r, product = jax.linearize(residuals, x)
        transpose = jax.linear_transpose(product, x)
        if by_products:
            (grad,) = transpose(r)
            moved = product(grad)
            curvature = jnp.vdot(moved, moved) / jnp.vdot(grad, grad)
            return r, grad, (jnp.fmax(scale, curvature),)
        if x.size <= r.size:
            jacobian = jax.vmap(product, out_axes=1)(jnp.eye(x.size, dtype=x.dtype))
        else:
            (jacobian,) = jax.vmap(transpose)(jnp.eye(r.size, dtype=x.dtype))
        q, triangle = jnp.linalg.qr(jacobian)
        scale = jnp.maximum(scale, jnp.linalg.norm(jacobian, axis=0))
        return r, r @ jacobian, (scale, triangle, r @ q)

    def dense_step(s):
        scale, triangle, qtr = s.factor
        # Enough to make a Jacobian regular that is not, and too little to see.
        mu = s.control if damped else jnp.asarray(eps**1.5, x.dtype)
        diagonal = jnp.where(scale > 0, scale, jnp.ones_like(scale))
        q, r = jnp.linalg.qr(
            jnp.concatenate([triangle, jnp.diag(jnp.sqrt(mu) * diagonal)])
        )
        p = -jax.scipy.linalg.solve_triangular(r, qtr @ q[: len(qtr)])
        return p, triangle @ p

    def products_step(s):
        _, product = jax.linearize(residuals, s.x)
        transpose = jax.linear_transpose(product, s.x)
        mu = s.control * s.factor[0] if damped else jnp.zeros((), x.dtype)
        p = jax.scipy.sparse.linalg.cg(
            lambda v: transpose(product(v))[0] + mu * v,
            -s.grad,
            tol=numbers["cg_tol"],
            maxiter=2 * x.size,
        )[0]
        return p, product(p)

    def body(s):
        first = s.tried < 0  # it goes nowhere, to evaluate the model at x0
        p, moved = (products_step if by_products else dense_step)(s)
        if not damped:
            p, moved = s.control * p, s.control * moved
        trial = s.x + p
        value = _half_square(residuals(trial))
        reduction = s.value - value
        predicted = -jnp.vdot(s.grad, p) - jnp.vdot(moved, moved) / 2
        ratio = reduction / predicted
        # NaN is no reduction. One that is nothing but rounding is none, either.
        better = first | (ratio > 1e-4) & (reduction > 0)
        if damped:
            kept = jnp.clip(1 - (2 * ratio - 1) ** 3, 1 / 3, 1)
            control = s.control * jnp.where(better, kept, s.growth)
        else:
            control = jnp.where(better, 1, s.control / 2)
        control = jnp.where(first, s.control, control)

        def take():
            return (trial, value, *model(trial, s.factor[0]))

        def stay():
            return s.x, s.value, s.residuals, s.grad, s.factor

        x, value, r, grad, factor = lax.cond(better, take, stay)
        length = jnp.linalg.norm(p)
        tried = s.tried + 1
        status = first_status(
            {
                Status.NOT_FINITE: first & ~jnp.isfinite(value + jnp.sum(grad)),
                Status.GTOL: better & (jnp.max(jnp.abs(grad)) <= gtol),
                Status.FTOL: ~first
                & better
                & (reduction < ftol * s.value)
                & (ratio > 0.25),
                Status.XTOL: ~first & (length < xtol * (xtol + jnp.linalg.norm(s.x))),
                Status.STUCK: ~first & ~(jnp.isfinite(control) & (length > 0)),
                Status.ITERATIONS: tried >= numbers["max_iterations"],
            }
        )
        taken = s.taken + (better & ~first).astype(jnp.int32)
        growth = jnp.where(better, 2, 2 * s.growth)
        return _Search(x, r, value, grad, factor, control, growth, tried, taken, status)

    shape = jax.eval_shape(model, x, x if not by_products else x[0])
    r, grad, factor = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    control = jnp.asarray(numbers["damping"] if damped else 1, x.dtype)
    infinity = jnp.full((), jnp.inf, x.dtype)
    zero = jnp.zeros((), jnp.int32)
    growth = jnp.full((), 2, x.dtype)
    start = _Search(x, r, infinity, grad, factor, control, growth, zero - 1, zero, zero)

    def loop(s):
        return lax.while_loop(lambda s: s.status == 0, body, s)

    end = whole(loop)(start)
    return MinimizeResult(
        params=end.x,
        value=end.value,
        grad=end.grad,
        converged=end.status > 0,
        status=end.status,
        iterations=end.taken,
        evaluations=end.tried + 1,
    )


def _half_square(r: jax.Array) -> jax.Array:
    return jnp.vdot(r, r) / 2
