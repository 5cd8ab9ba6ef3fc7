"""Eigenvalues, roots and least squares, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jopt
from jopt.algorithms.linear_algebra import (
    matrix_inverse_pth_root,
    nnls,
    power_iteration,
)


def symmetric(eigenvalues: list[float], seed: int = 0) -> np.ndarray:
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * eigenvalues) @ q.T


@pytest.mark.parametrize("eigenvalues", [[5.0, 2.0, 1.0, 0.5], [1.0, -4.0, 2.0, 3.0]])
def test_the_dominant_eigenvalue_is_numpys_of_largest_magnitude(eigenvalues) -> None:
    matrix = symmetric(eigenvalues)
    value, vector = jax.jit(power_iteration)(jnp.asarray(matrix, jnp.float32))
    values, vectors = np.linalg.eigh(matrix)
    largest = np.argmax(np.abs(values))
    np.testing.assert_allclose(value, values[largest], rtol=1e-5)
    assert abs(vector @ vectors[:, largest]) > 1 - 1e-5


def test_a_function_of_a_tree_needs_no_matrix() -> None:
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}

    def loss(p):
        return jnp.sum(p["a"] ** 2) + 3 * jnp.sum(p["b"] ** 2)

    value, vector = power_iteration(lambda v: jopt.hvp(loss, params, v), v0=params)
    np.testing.assert_allclose(value, 6.0, rtol=1e-5)
    np.testing.assert_allclose(vector["b"], np.full(2, 0.5**0.5), rtol=1e-3)
    with pytest.raises(ValueError, match="v0 must be given with a function"):
        power_iteration(lambda v: v)


def test_the_number_of_power_iterations_has_a_limit() -> None:
    matrix = jnp.asarray(symmetric([1.0, 0.999, 0.5]), jnp.float32)
    values = [float(power_iteration(matrix, num_iters=n)[0]) for n in (1, 3)]
    assert values[0] < values[1] < 1


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_an_inverse_root_is_that_of_the_eigenvalues(p: int) -> None:
    eigenvalues = [4.0, 1.0, 0.3, 0.05]
    matrix = symmetric(eigenvalues)
    expected = symmetric([x ** (-1 / p) for x in eigenvalues])
    root, error = jax.jit(matrix_inverse_pth_root, static_argnums=1)(
        jnp.asarray(matrix, jnp.float32), p, ridge_epsilon=0.0
    )
    np.testing.assert_allclose(root, expected, rtol=1e-4, atol=1e-3)
    assert error < 1e-4


def test_the_ridge_bounds_the_inverse_of_nothing() -> None:
    matrix = jnp.diag(jnp.array([1.0, 0.0]))
    root, _ = matrix_inverse_pth_root(matrix, 2, ridge_epsilon=1e-2)
    np.testing.assert_allclose(root[1, 1], 10.0, rtol=1e-3)
    with pytest.raises(ValueError, match="p must be >= 1, got p=0"):
        matrix_inverse_pth_root(matrix, 0)


@pytest.mark.parametrize("seed", range(3))
def test_nonnegative_least_squares_are_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(8, 4)), rng.normal(size=(8, 2))
    found = nnls(jnp.asarray(A, jnp.float32), jnp.asarray(b, jnp.float32), 2000)
    columns = [scipy.optimize.nnls(A, column)[0] for column in b.T]
    np.testing.assert_allclose(found, np.stack(columns, axis=1), atol=1e-4)


def test_least_squares_keep_a_dtype_and_refuse_other_shapes() -> None:
    A, b = jnp.ones((3, 2), jnp.bfloat16), jnp.ones(3, jnp.bfloat16)
    assert nnls(A, b, 5).dtype == jnp.bfloat16
    assert np.all(nnls(jnp.zeros((3, 2)), jnp.ones(3), 5) == 0)
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(2,\)"):
        nnls(A, b[:2], 5)
