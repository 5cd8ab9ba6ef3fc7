"""Functions under noise: their means, and derivatives without derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jopt
from jopt.gradients.perturbations import DiagonalNormal


KEY = jax.random.key(0)
X = jnp.array([0.3, 0.1, -0.2])


def winner(x):
    return jax.nn.one_hot(jnp.argmax(x), len(x))


def test_the_mean_argmax_under_gumbel_noise_is_softmax() -> None:
    sigma = 0.5
    smooth = jax.jit(jopt.make_perturbed_fun(winner, 50_000, sigma))

    def softmax(x):
        return jax.nn.softmax(x / sigma)

    np.testing.assert_allclose(smooth(KEY, X), softmax(X), atol=0.01)
    found = jax.jacobian(smooth, argnums=1)(KEY, X)
    np.testing.assert_allclose(found, jax.jacobian(softmax)(X), atol=0.05)


def test_a_baseline_makes_gradients_vary_less() -> None:
    def far(x):  # a large constant, which no gradient depends on
        return 100 + jnp.sum(x)

    def error(use_baseline):
        f = jopt.make_perturbed_fun(
            far, 500, 0.5, jopt.Normal(), use_baseline=use_baseline
        )
        return jnp.max(jnp.abs(jax.jit(jax.grad(f, argnums=1))(KEY, X) - 1))

    assert error(True) < 0.3 < error(False)


def test_second_derivatives_are_estimated_too() -> None:
    def square(x):
        return jnp.sum(jax.lax.stop_gradient(x) ** 2)

    f = jopt.make_perturbed_fun(square, 100_000, 0.5, jopt.Normal())
    found = jax.jit(jax.hessian(f, argnums=1))(KEY, X[:2])
    np.testing.assert_allclose(found, 2 * np.eye(2), atol=0.2)


def test_a_tree_of_any_dtype_is_perturbed() -> None:
    f = jopt.make_perturbed_fun(lambda x: x, 200, 0.1, jopt.Normal())
    tree = {"a": jnp.ones((2, 3)), "b": jnp.ones(2, jnp.bfloat16)}
    found = jax.jit(f)(KEY, tree)
    assert (found["a"].dtype, found["b"].dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(found["a"], 1, atol=0.05)
    with pytest.raises(ValueError, match="num_samples must be >= 1"):
        jopt.make_perturbed_fun(winner, 0)


@pytest.mark.parametrize(
    ("noise", "reference"),
    [(jopt.Normal(), scipy.stats.norm), (jopt.Gumbel(), scipy.stats.gumbel_r)],
)
def test_noise_has_scipys_density_up_to_a_constant(noise, reference) -> None:
    points = np.linspace(-1.5, 2.5, 9, dtype=np.float32)
    difference = noise.log_prob(points) - reference.logpdf(points)
    np.testing.assert_allclose(difference, difference[0], atol=1e-5)
    samples = noise.sample(KEY, (20_000,), jnp.float32)
    assert scipy.stats.kstest(samples, reference.cdf).pvalue > 0.01


def test_a_diagonal_normal_has_scipys_density() -> None:
    loc, scale = np.array([[1.0, -1.0, 0.5]]), np.array([[0.5], [2.0]])
    normal = DiagonalNormal(jnp.asarray(loc, jnp.float32), jnp.log(jnp.float32(scale)))
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    expected = scipy.stats.norm.logpdf(x, loc, scale).sum()
    np.testing.assert_allclose(normal.log_prob(x), expected, rtol=1e-5)
    samples = normal.sample((5000,), KEY)
    assert samples.shape == (5000, 2, 3)
    np.testing.assert_allclose(samples.mean(0), np.broadcast_to(loc, (2, 3)), atol=0.1)
    np.testing.assert_allclose(samples.std(0)[1], np.full(3, 2.0), rtol=0.05)
    assert [x.shape for x in normal.params] == [(1, 3), (2, 1)]
