"""Least squares beside scipy.optimize.least_squares, on fits as NIST has them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jopt


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def exponential(b, t):  # Misra1a
    return b[0] * (1 - jnp.exp(-b[1] * t))


def chwirut(b, t):
    return jnp.exp(-b[0] * t) / (b[1] + b[2] * t)


def lanczos(b, t):
    return b[0] * jnp.exp(-b[1] * t) + b[2] * jnp.exp(-b[3] * t)


def gauss(b, t):
    return (
        b[0] * jnp.exp(-b[1] * t)
        + b[2] * jnp.exp(-(((t - b[3]) / b[4]) ** 2))
        + b[5] * jnp.exp(-(((t - b[6]) / b[7]) ** 2))
    )


def thurber(b, t):
    above = b[0] + b[1] * t + b[2] * t**2 + b[3] * t**3
    return above / (1 + b[4] * t + b[5] * t**2 + b[6] * t**3)


def rational(b, t):  # MGH09
    return b[0] * (t**2 + t * b[1]) / (t**2 + t * b[2] + b[3])


def growth(b, t):  # Rat43
    return b[0] / (1 + jnp.exp(b[1] - b[2] * t)) ** (1 / b[3])


def eckerle(b, t):
    return b[0] / b[1] * jnp.exp(-((t - b[2]) ** 2) / (2 * b[1] ** 2))


# Each with the parameters of the data, the range of t, the noise, and two starts: far
# and near.
FITS = {
    "misra": (exponential, [239.0, 5.5e-4], (77, 760), 0.1, [[500, 1e-4], [250, 5e-4]]),
    "chwirut": (
        chwirut,
        [0.19, 6.1e-3, 1.05e-2],
        (0.5, 6),
        1.0,
        [[0.1, 0.01, 0.02], [0.15, 0.008, 0.01]],
    ),
    "lanczos": (
        lanczos,
        [1.5, 1.0, 2.0, 5.0],
        (0, 3),
        1e-3,
        [[1.2, 0.3, 5.6, 5.5], [0.5, 0.7, 3.6, 4.2]],
    ),
    "gauss": (
        gauss,
        [98.8, 0.0105, 100.5, 67.5, 23.1, 72.0, 179.0, 18.4],
        (1, 250),
        1.0,
        [
            [97, 0.009, 100, 65, 20, 70, 178, 16.5],
            [94, 0.0105, 99, 63, 25, 71, 180, 20],
        ],
    ),
    "thurber": (
        thurber,
        [1288, 1491, 583, 75, 0.967, 0.398, 0.0497],
        (-3, 2.1),
        5.0,
        [
            [1000, 1000, 400, 40, 0.7, 0.3, 0.03],
            [1300, 1500, 500, 75, 1, 0.4, 0.05],
        ],
    ),
    "rational": (
        rational,
        [0.193, 0.191, 0.123, 0.136],
        (0.06, 4),
        1e-3,
        [[0.35, 0.5, 0.5, 0.5], [0.25, 0.39, 0.415, 0.39]],
    ),
    "growth": (
        growth,
        [700, 5.3, 0.76, 1.28],
        (1, 15),
        5.0,
        [[100, 10, 1, 1], [700, 5, 0.75, 1.3]],
    ),
    "eckerle": (
        eckerle,
        [1.55, 4.09, 451.5],
        (400, 500),
        1e-3,
        [[1, 10, 500], [1.5, 5, 450]],
    ),
}


@functools.cache
def fit(name):
    model, truth, ends, noise, starts = FITS[name]
    t = np.linspace(*ends, 60)
    clean = np.asarray(model(jnp.asarray(truth, float), t))
    y = clean + noise * np.random.default_rng(0).standard_normal(60)

    def residuals(b, t, y):
        return model(b, t) - y

    return residuals, (t, y), np.array(starts, float)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", FITS)
def test_the_minimum_is_that_of_scipy(name, start):
    residuals, data, starts = fit(name)
    f = jax.jit(residuals)
    expected = scipy.optimize.least_squares(
        lambda b: np.asarray(f(b, *data)), starts[start], method="lm", x_scale="jac"
    )
    result = jopt.levenberg_marquardt(residuals, starts[start], data)
    assert result.converged, result.message
    np.testing.assert_allclose(result.value, expected.cost, rtol=1e-7)
    # scipy counts the evaluations for its differences.
    assert result.evaluations <= 30


@pytest.mark.parametrize("start", [0, 1])
def test_without_a_jacobian_the_minimum_is_the_same(start):
    residuals, data, starts = fit("thurber")
    dense = jopt.levenberg_marquardt(residuals, starts[start], data)
    free = jopt.levenberg_marquardt(residuals, starts[start], data, linear_solver="cg")
    assert free.converged, free.message
    np.testing.assert_allclose(free.value, dense.value, rtol=1e-7)


def test_gauss_newton_takes_fewer_steps_near_the_minimum():
    residuals, data, starts = fit("thurber")
    damped = jopt.levenberg_marquardt(residuals, starts[1], data)
    plain = jopt.gauss_newton(residuals, starts[1], data)
    assert plain.converged and plain.iterations < damped.iterations
    np.testing.assert_allclose(plain.params, damped.params, rtol=1e-5)


def line(params, x, y):
    return {"near": params["a"] * x[:3] + params["b"] - y[:3], "far": (x - y)[3:] * 0}


def test_a_linear_problem_takes_one_step_and_has_the_gradient_of_its_solution():
    x, y = jnp.arange(5.0), jnp.array([1.0, 3.0, 5.0, 0.0, 0.0])
    start = {"a": jnp.zeros(()), "b": 0.0, "none": None}
    result = jopt.gauss_newton(line, start, (x, y))
    assert result.iterations <= 2
    assert result.params["none"] is None
    np.testing.assert_allclose([result.params["a"], result.params["b"]], [2, 1])

    def slope(y):
        return jopt.gauss_newton(line, start, (x, y)).params["a"]

    # The slope of a line through three points is half the difference of the ends.
    np.testing.assert_allclose(jax.grad(slope)(y), [-0.5, 0, 0.5, 0, 0], atol=1e-12)


def test_parameters_that_do_nothing_stay():
    result = jopt.gauss_newton(lambda x: jnp.stack([x[0] - 1]), jnp.array([3.0, 7.0]))
    np.testing.assert_allclose(result.params, [1, 7])


def test_vmap_fits_many_at_once():
    residuals, (t, _), starts = fit("misra")
    scales = jnp.array([200.0, 300.0])
    y = jax.vmap(lambda s: exponential(jnp.array([s, 5e-4]), t))(scales)
    fits = jax.vmap(lambda y: jopt.levenberg_marquardt(residuals, starts[1], (t, y)))(y)
    np.testing.assert_allclose(fits.params[:, 0], scales, rtol=1e-6)
    assert all(text.startswith("converged") for text in fits.message)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f(3, jnp.ones(2)), TypeError, "residual_fun must be a function"),
        (lambda f: f(lambda x: x, jnp.ones(2), 3.0), TypeError, r"write args=\(x,\)"),
        (lambda f: f(lambda x: x, {}), ValueError, "x0 has no elements"),
        (lambda f: f(lambda x: x, {"a": jnp.arange(2)}), TypeError, "x0 leaf 'a' has"),
        (
            lambda f: f(lambda x: x, jnp.ones(2, complex)),
            TypeError,
            "real numbers only",
        ),
        (lambda f: f(lambda x: x > 0, jnp.ones(2)), TypeError, "floating point"),
        (lambda f: f(lambda x: x, jnp.ones(2), linear_solver="lu"), ValueError, "'qr'"),
        (lambda f: f(lambda x: x, jnp.ones(2), xtol=-1), ValueError, "xtol must be"),
    ],
)
def test_a_mistake_is_an_early_error(call, error, message):
    with pytest.raises(error, match=message):
        call(jopt.levenberg_marquardt)


def test_it_says_why_it_has_not_converged():
    square = lambda x: x**2 + 1e-3  # noqa: E731
    result = jopt.levenberg_marquardt(square, jnp.ones(1), max_iterations=2)
    assert not result.converged and "max_iterations is reached" in result.message
    result = jopt.levenberg_marquardt(lambda x: jnp.log(x), -jnp.ones(1))
    assert not result.converged and "not finite at x0" in result.message
