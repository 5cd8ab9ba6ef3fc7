"""Eigenvalues, roots and least squares by iterations that need only products.

All run under ``jit`` and take as many steps as they need, up to a limit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jopt import tree
from jopt.tree.dtypes import promoted, wide
from jopt.values import arguments


def power_iteration(
    matrix: ArrayLike | Callable[[Any], Any],
    *,
    v0: Any = None,
    num_iters: ArrayLike = 100,
    error_tolerance: ArrayLike = 1e-6,
    precision: Any = lax.Precision.HIGHEST,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """Return the eigenvalue of largest magnitude, and its eigenvector.

        v <- A v / |A v|,   lambda = <v, A v>,   until |A v - lambda v| <= tol |lambda|

    It converges if that eigenvalue is alone at its magnitude.

    Args:
      matrix: A square matrix, or a linear function of a tree, such as
        ``lambda v: jopt.hvp(loss, params, v)``.
      v0: The vector to start at, with a part along the eigenvector. A function needs
        one; for a matrix it is random by default.
      num_iters: The largest number of steps.
      error_tolerance: The relative residual at which to stop.
      precision: Precision of the products with a matrix.
      key: A key for the random start; None means the key 0.

    Returns:
      The eigenvalue, and the eigenvector with norm 1.

    Raises:
      ValueError: ``matrix`` is a function and there is no ``v0``.

    >>> value, vector = power_iteration(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> round(float(value), 4), jnp.abs(vector).round(4)
    (3.0, Array([0.7071, 0.7071], dtype=float32))
    """
    if callable(matrix):
        product = matrix
        if v0 is None:
            raise ValueError(
                "v0 must be given with a function: it has the form of what the "
                "function takes, such as jopt.tree.ones_like(params)"
            )
    else:
        matrix = jnp.asarray(matrix)
        product = functools.partial(jnp.matmul, matrix, precision=precision)
        if v0 is None:
            key = jax.random.key(0) if key is None else key
            v0 = jax.random.uniform(key, matrix.shape[-1:], matrix.dtype, -1, 1)

    def unit(v):
        return tree.scale(1 / tree.norm(v), v)

    def step(carry):
        _, _, moved, i = carry
        v = unit(moved)
        moved = product(v)
        return tree.real(tree.vdot(v, moved)), v, moved, i + 1

    def goes_on(carry):
        value, v, moved, i = carry
        residual = tree.norm(tree.sub(moved, tree.scale(value, v)))
        return (residual >= error_tolerance * jnp.abs(value)) & (i < num_iters)

    v = unit(v0)
    # A value of NaN or a residual of NaN ends the loop: no comparison with it holds.
    start = (jnp.zeros((), tree.scalar_dtype()), v, product(v), jnp.int32(0))
    value, _, moved, _ = lax.while_loop(goes_on, step, start)
    return value, unit(moved)


def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: int,
    num_iters: ArrayLike = 100,
    ridge_epsilon: ArrayLike = 1e-6,
    error_tolerance: ArrayLike = 1e-6,
    precision: Any = lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """Return ``A^(-1/p)`` of a symmetric positive semidefinite matrix, and an error.

    Coupled Newton iteration on ``A + ridge lambda_max(A) I``: ``M`` goes from ``z A``
    to ``I`` while ``H`` goes from ``z^(1/p) I`` to the root.

        T = ((p + 1) I - M) / p,   M <- T^p M,   H <- H T,   z = (p + 1) / (2 |A|_F)

    It stops once ``|M - I|`` is below the tolerance or grows.

    Args:
      matrix: The matrix A.
      p: The root, a whole number > 0.
      num_iters: The largest number of steps.
      ridge_epsilon: The ridge as a fraction of the largest eigenvalue. It bounds what
        is the inverse of nearly nothing.
      error_tolerance: The error at which to stop.
      precision: Precision of the products.

    Returns:
      The root, in the dtype of ``matrix``, and the largest element of ``|M - I|``.

    Raises:
      ValueError: ``p`` is below 1.

    Higham, "Functions of Matrices: Theory and Computation", 2008, equation 7.18.

    >>> root, error = matrix_inverse_pth_root(jnp.diag(jnp.array([16.0, 81.0])), 4)
    >>> root.round(4)
    Array([[0.5   , 0.    ],
           [0.    , 0.3333]], dtype=float32)
    """
    p = arguments.whole("p", p)
    arguments.at_least(1, p=p)
    matrix = jnp.asarray(matrix)
    a = matrix.astype(tree.compute_dtype(matrix.dtype))
    identity = jnp.eye(len(a), dtype=a.dtype)
    multiply = functools.partial(jnp.matmul, precision=precision)
    largest, _ = power_iteration(a, precision=precision)
    ridge = ridge_epsilon * jnp.maximum(largest, 1e-16)
    a = a + ridge.astype(a.dtype) * identity

    def error_of(m):
        return jnp.max(jnp.abs(m - identity))

    def step(carry):
        m, h, _, error, i, _ = carry
        t = identity + (identity - m) / p
        m = multiply(_power(t, p, multiply), m)
        new = error_of(m)
        # The error may rise a little before it falls.
        return m, multiply(h, t), h, new, i + 1, new < 1.2 * error

    def goes_on(carry):
        *_, error, i, falls = carry
        return (error > error_tolerance) & falls & (i < num_iters)

    z = (1 + p) / (2 * jnp.linalg.norm(a))
    m, h = a * z, identity * z ** (1 / p)
    start = (m, h, h, error_of(m), jnp.int32(0), jnp.bool_(True))
    _, h, previous, error, _, falls = lax.while_loop(goes_on, step, start)
    return jnp.where(falls, h, previous).astype(matrix.dtype), error


def _power(x: jax.Array, n: int, multiply: Callable[..., jax.Array]) -> jax.Array:
    if n == 1:
        return x
    half = _power(x, n // 2, multiply)
    square = multiply(half, half)
    return multiply(square, x) if n % 2 else square


def nnls(
    A: jax.Array,
    b: jax.Array,
    iters: int,
    unroll: int | bool = 1,
    L: ArrayLike | None = None,
) -> jax.Array:
    """Solve the least-squares problem ``min |A x - b|^2`` with ``x >= 0``.

    Accelerated projected gradient:

        x <- max(y - (A^T A y - A^T b) / L, 0),   y = x + (c - 1) / c_new (x - x_old),
        c_new = (1 + sqrt(1 + 4 c^2)) / 2

    Args:
      A: A matrix.
      b: A vector, or a matrix with one problem in each column.
      iters: Number of steps.
      unroll: As of ``jax.lax.scan``.
      L: A bound of the eigenvalues of ``A^T A``, the inverse of the step size; None
        takes the smaller of its Frobenius and its 1-norm.

    Returns:
      ``x``, of A's columns, in the dtype of A and b.

    Raises:
      ValueError: The shapes of A and b do not match.

    Polyak, "Projected gradient method for non-negative least square", 2015.

    >>> A, b = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([5.0, 6.0])
    >>> nnls(A, b, 1000).round(3)
    Array([0. , 1.7], dtype=float32)
    """
    if A.ndim != 2 or b.ndim not in (1, 2) or len(A) != len(b):
        raise ValueError(
            "A must be a matrix, and b a vector or matrix of as many rows, got shapes "
            f"{A.shape} and {b.shape}"
        )
    dtype = promoted(A, b)
    A, b = (jnp.asarray(x).astype(wide(dtype)) for x in (A, b))
    square, right = A.T @ A, A.T @ b
    if L is None:
        columns = jnp.sum(jnp.abs(square), axis=0)
        L = jnp.minimum(jnp.linalg.norm(square), jnp.max(columns, initial=0))
    L = jnp.where(L == 0, 1, L)

    def step(carry, _):
        x, y, c = carry
        new = jnp.maximum(y - (square @ y - right) / L, 0)
        new_c = (1 + jnp.sqrt(1 + 4 * c**2)) / 2
        return (new, new + (c - 1) / new_c * (new - x), new_c), None

    zeros = jnp.zeros_like(right)
    start = (zeros, zeros, jnp.zeros((), right.dtype))
    (x, _, _), _ = lax.scan(step, start, length=iters, unroll=unroll)
    return x.astype(dtype)
