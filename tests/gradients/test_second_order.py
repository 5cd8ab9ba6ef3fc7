"""Curvature against JAX's whole Hessian, and gradients scaled on their way back."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jopt


PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.array([0.3, -0.2])}
X, Y = jnp.linspace(-2.0, 2.0, 12).reshape(4, 3), jnp.ones((4, 2))


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) - y) ** 2)


def hessian() -> np.ndarray:
    flat, unravel = ravel_pytree(PARAMS)
    return np.asarray(jax.hessian(lambda p: loss(unravel(p), X, Y))(flat))


def test_a_product_with_the_hessian_is_that_of_the_matrix() -> None:
    vector = jax.tree.map(lambda p: jnp.cos(7 * p), PARAMS)
    found = jax.jit(jopt.hvp, static_argnums=0)(loss, PARAMS, vector, X, Y)
    expected = hessian() @ ravel_pytree(vector)[0]
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-5, atol=1e-7)


def test_a_vector_may_be_wider_than_the_parameters() -> None:
    params, vector = jnp.ones(2, jnp.bfloat16), jnp.array([1.0, 2.0])
    found = jopt.hvp(lambda p: jnp.sum(p**3), params, vector)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, [6.0, 12.0])


def test_the_diagonal_is_that_of_the_matrix() -> None:
    found, _ = ravel_pytree(jopt.hessian_diag(loss, PARAMS, X, Y))
    np.testing.assert_allclose(found, np.diag(hessian()), rtol=1e-5, atol=1e-7)


def test_the_fisher_diagonal_is_the_squared_gradient() -> None:
    found = jopt.fisher_diag(loss, PARAMS, X, Y)
    expected = jax.tree.map(jnp.square, jax.grad(loss)(PARAMS, X, Y))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jopt.fisher_diag(lambda p: jnp.real(p * 1j), jnp.complex64(1)) == 1


def test_a_scaled_gradient_leaves_the_value_alone() -> None:
    def squares(x, scale):
        x = jopt.scale_gradient(x, scale)
        return jnp.sum(x["a"] ** 2) + x["b"] ** 2

    x = {"a": jnp.array([1.0, -2.0]), "b": jnp.float32(3.0), "none": None}
    for scale in (-1.0, 0.0, 0.5, 1.0, jnp.float32(2.0)):
        value, gradient = jax.value_and_grad(squares)(x, scale)
        assert value == 14
        np.testing.assert_allclose(gradient["a"], 2 * scale * x["a"])
        np.testing.assert_allclose(gradient["b"], 6 * scale)
    traced = jax.jit(jax.grad(squares))(x, 0.5)
    np.testing.assert_allclose(traced["b"], 3.0)


def test_a_scaled_gradient_keeps_the_dtype_of_its_leaf() -> None:
    x = jnp.ones(2, jnp.bfloat16)
    gradient = jax.grad(lambda x: jnp.sum(jopt.scale_gradient(x, jnp.float32(0.1))))(x)
    assert gradient.dtype == jnp.bfloat16
