"""Norms with a lower bound, and counts that do not overflow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.tree import safe_norm, safe_root_mean_squares


MATRIX = np.arange(12.0).reshape(3, 4) - 5


@pytest.mark.parametrize(
    ("ord", "axis"),
    [
        (None, None),
        ("fro", None),
        ("nuc", None),
        (None, 0),
        (1, 1),
        (3.5, 1),
        (-jnp.inf, 0),
        (2, (0, 1)),
    ],
)
def test_a_safe_norm_is_numpys_norm_above_the_bound(ord, axis) -> None:
    keepdims = axis == 1
    norm = functools.partial(safe_norm, ord=ord, axis=axis, keepdims=keepdims)
    expected = np.linalg.norm(MATRIX, ord, axis, keepdims)
    found = norm(jnp.asarray(MATRIX, jnp.float32), 0.0)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    np.testing.assert_array_equal(
        norm(jnp.asarray(MATRIX, jnp.float32), 100.0), np.full_like(expected, 100)
    )
    # Where the bound counts the derivative is 0, also at 0, where the norm has none.
    derivative = jax.jacobian(norm)(jnp.zeros((3, 4)), 0.0)
    np.testing.assert_array_equal(derivative, np.zeros_like(derivative))


def test_the_derivative_of_a_safe_norm_above_the_bound_is_that_of_the_norm() -> None:
    x = jnp.array([3.0, 4.0])
    np.testing.assert_allclose(jax.grad(safe_norm)(x, 1.0), [0.6, 0.8], rtol=1e-6)


def test_a_safe_rms_of_float16_does_not_overflow() -> None:
    x = jnp.full(8, 600.0, jnp.float16)  # 600^2 is beyond float16
    rms = safe_root_mean_squares(x, 1e-3)
    assert (rms.dtype, float(rms)) == (jnp.float16, 600.0)
    assert float(safe_root_mean_squares(jnp.zeros(3), 0.5)) == 0.5
    complex_rms = safe_root_mean_squares(jnp.array([3 + 4j, 5.0]), 0.0)
    np.testing.assert_allclose(complex_rms, 5.0, rtol=1e-6)
    for bound in (0.0, 3.0):
        assert jax.grad(safe_root_mean_squares)(jnp.float32(0), bound) == 0


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int32", "uint32", "float16", "bfloat16", "float32"]
)
def test_a_count_stays_at_the_largest_number_of_its_dtype(dtype: str) -> None:
    info = jnp.iinfo if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo
    counts = jnp.asarray([3, info(dtype).max], dtype)
    found = jax.jit(jopt.safe_increment)(counts)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, jnp.asarray([4, info(dtype).max], dtype))


def test_a_count_may_be_a_python_number_but_no_bool() -> None:
    assert int(jopt.safe_increment(3)) == 4
    for wrong in (True, 1j):
        with pytest.raises(ValueError, match="count must be a real number"):
            jopt.safe_increment(wrong)


def test_the_global_norm_is_the_norm_of_all_leaves() -> None:
    tree = {"a": jnp.full(4, 300.0, jnp.float16), "b": None, "c": 800.0}
    assert float(jopt.global_norm(tree)) == 1000.0
