"""minimize beside scipy's L-BFGS-B: minima, evaluations, bounds, and what it says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jopt
from jopt.solvers import descent
from jopt.solvers.quasi_newton import lbfgs_directions


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quartic(x, target, weight):
    """Of a tree, with a minimum that is not zero."""
    near = x["a"] - target
    return (
        jnp.sum(weight * near**2 + near**4)
        + (x["b"] * x["a"][0] - 1) ** 2
        + x["b"] ** 2
    )


START = np.tile([-1.2, 1.0], 15)
TIGHT = {"gtol": 1e-6, "ftol": 0.0}


def by_scipy(fun, x0, bounds=None, gtol=1e-6):
    graded = jax.jit(jax.value_and_grad(fun))
    return scipy.optimize.minimize(
        lambda x: [np.asarray(v, float) for v in graded(x)],
        x0,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds and list(zip(*map(np.asarray, bounds), strict=True)),
        options={"gtol": gtol, "ftol": 0.0},
    )


@pytest.fixture(scope="module")
def free():
    return jopt.minimize(rosenbrock, START, **TIGHT)


def test_it_takes_the_steps_of_scipy(free):
    theirs = by_scipy(rosenbrock, START)
    assert free.converged and "gtol" in free.message
    np.testing.assert_allclose(free.params, np.ones(30), rtol=1e-6)
    assert int(free.evaluations) <= 1.1 * theirs.nfev
    assert int(free.iterations) <= 1.1 * theirs.nit
    assert jnp.max(jnp.abs(free.grad)) <= 1e-6
    np.testing.assert_allclose(free.value, rosenbrock(free.params))


BOXES = {
    "both": (np.full(30, -1.5), np.where(np.arange(30) % 3, 2.0, 0.7)),
    "some": (np.full(30, -np.inf), np.where(np.arange(30) % 4, np.inf, 0.5)),
    "fixed": (
        np.where(np.arange(30) == 7, 0.3, -2),
        np.where(np.arange(30) == 7, 0.3, 3),
    ),
}


@pytest.mark.parametrize("name", BOXES)
def test_within_bounds_the_minimum_is_that_of_scipy(name):
    theirs = by_scipy(rosenbrock, START, BOXES[name])
    ours = jopt.minimize(rosenbrock, START, bounds=BOXES[name], **TIGHT)
    assert ours.converged, ours.message
    np.testing.assert_allclose(ours.value, theirs.fun, rtol=1e-10)
    np.testing.assert_allclose(ours.params, theirs.x, atol=1e-6)
    lower, upper = BOXES[name]
    assert np.all((ours.params >= lower) & (ours.params <= upper))
    assert int(ours.evaluations) <= 1.2 * theirs.nfev + 3


def two_loops(pairs, grad):
    """H g by the two loops, for a few pairs, the oldest first."""
    q, alphas = np.array(grad), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    q *= s @ y / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q += s * (alpha - y @ q / (s @ y))
    return q


def test_the_compact_form_is_that_of_the_two_loops():
    rng = np.random.default_rng(0)
    directions = lbfgs_directions(3)
    x, yes, no = jnp.zeros(6), jnp.array(True), jnp.array(False)
    memory, pairs = directions.start(x), []
    matrix = np.diag(np.arange(1.0, 7.0)) + 0.1
    for count in range(8):  # more than it remembers
        s = jnp.array(rng.standard_normal(6))
        grad = jnp.array(rng.standard_normal(6))
        pairs = [*pairs, (s, matrix @ s)][-3:]
        memory, direction = directions.next(
            memory, x, grad, s, matrix @ s, jnp.int32(count % 3), jnp.int32(1), yes, no
        )
        np.testing.assert_allclose(direction, -two_loops(pairs, grad), rtol=1e-12)
        # Without `keep` nothing is remembered.
        memory, direction = directions.next(
            memory, x, grad, 2 * s, s, jnp.int32(0), jnp.int32(1), no, no
        )
        np.testing.assert_allclose(direction, -two_loops(pairs, grad), rtol=1e-12)
    _, direction = directions.next(
        memory, x, grad, s, s, jnp.int32(0), jnp.int32(1), no, yes
    )
    np.testing.assert_array_equal(direction, -grad)


# Trees, aux, callbacks, precision.

TREE = {"a": np.zeros(3), "b": 2.0, "none": None}


def test_a_tree_comes_back_as_it_is_with_aux():
    def fun(x, target):
        return quartic(x, target, 1.0), {"double": 2 * x["b"]}

    result = jopt.minimize(fun, TREE, (jnp.arange(3.0),), has_aux=True, tol=1e-8)
    assert result.converged
    assert result.params["none"] is None and result.grad["none"] is None
    assert result.params["a"].shape == (3,) and result.params["b"].shape == ()
    np.testing.assert_allclose(result.aux["double"], 2 * result.params["b"])


def test_a_callback_sees_each_step_and_can_end_the_run():
    seen = []

    def callback(result):
        seen.append((int(result.iterations), float(result.value)))
        return len(seen) == 5

    result = jopt.minimize(rosenbrock, START, callback=callback, **TIGHT)
    assert result.message == "stopped by callback" and not result.converged
    assert [i for i, _ in seen] == [1, 2, 3, 4, 5]
    assert all(b < a for (_, a), (_, b) in itertools.pairwise(seen))


def test_step_by_step_has_the_numbers_of_the_compiled_loop(free):
    result = jopt.minimize(rosenbrock, START, callback=lambda result: None, **TIGHT)
    for ours, whole in zip(result[:-1], free[:-1], strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-9, atol=1e-9)


def test_float32_converges_by_default():
    result = jopt.minimize(lambda x: jnp.sum((x - 3) ** 4), jnp.ones(4, jnp.float32))
    assert result.converged and result.params.dtype == jnp.float32
    np.testing.assert_allclose(result.params, 3, atol=0.05)


def test_it_runs_inside_jit_and_vmap_and_compiles_once():
    traces = []

    def fun(x, a):
        traces.append(a)
        return jnp.sum((x - a) ** 4 + (x - a) ** 2)

    many = jax.jit(jax.vmap(lambda a: jopt.minimize(fun, jnp.zeros(2), (a,), tol=1e-9)))
    result = many(jnp.array([1.0, 2.0, 30.0]))
    np.testing.assert_allclose(result.params[:, 0], [1, 2, 30], rtol=1e-6)
    assert result.converged.all()
    jopt.minimize(fun, jnp.zeros(2), (1.0,))
    before = len(traces)
    jopt.minimize(fun, jnp.ones(2), (2.0,), gtol=1e-3)
    assert len(traces) == before


# Derivatives.


def numeric(f, x, eps=1e-5):
    return (f(x + eps) - f(x - eps)) / (2 * eps)


@pytest.mark.parametrize("upper", [None, 0.8])
def test_the_solution_has_derivatives_also_at_bounds(upper):
    start = {"a": jnp.zeros(3), "b": 0.0}
    bounds = None if upper is None else ({"a": None, "b": -1.0}, {"a": upper, "b": 5.0})

    def of(weight):
        args = (jnp.array([0.5, 1.0, 0.7]), weight)
        r = jopt.minimize(quartic, start, args, bounds=bounds, gtol=1e-11, ftol=0.0)
        return jnp.sum(r.params["a"] * jnp.arange(1.0, 4.0)) + r.params["b"], r.value

    forward = jax.jacfwd(of)(2.0)
    np.testing.assert_allclose(jax.jacrev(of)(2.0), forward, rtol=1e-8)
    np.testing.assert_allclose(forward[0], numeric(lambda w: of(w)[0], 2.0), rtol=1e-5)
    np.testing.assert_allclose(forward[1], numeric(lambda w: of(w)[1], 2.0), rtol=1e-5)


def test_a_solution_at_its_bound_moves_with_the_bound():
    def of(bound):
        fun = lambda x: jnp.sum((x - 2) ** 2) + x[0] * x[1]  # noqa: E731
        return jopt.minimize(fun, jnp.zeros(2), bounds=(None, bound)).params

    # x0 = 0.5; x1 = 2 - x0 / 2 would be 1.75, and is at the bound, too.
    np.testing.assert_allclose(jax.jacfwd(of)(0.5), [1, 1])


def test_what_the_function_closes_over_has_derivatives_too():
    def of(a):
        return jopt.minimize(lambda x: jnp.sum((x - a) ** 2), jnp.zeros(2)).params[0]

    np.testing.assert_allclose(jax.grad(of)(3.0), 1.0)
    np.testing.assert_allclose(jax.jit(jax.grad(of))(3.0), 1.0)


# Failures.


def test_it_says_why_it_has_not_converged():
    result = jopt.minimize(rosenbrock, START, max_iterations=3)
    assert not result.converged and result.iterations == 3
    assert "max_iterations is reached" in result.message
    result = jopt.minimize(lambda x: jnp.sum(jnp.log(x)), -jnp.ones(2))
    assert not result.converged and "not finite at x0" in result.message

    @jax.custom_jvp
    def wrong(x):
        return jnp.sum(x**2)

    wrong.defjvp(lambda x, t: (wrong(*x), -jnp.sum(2 * x[0] * t[0])))
    result = jopt.minimize(wrong, jnp.ones(2))
    assert not result.converged and "the gradient is wrong" in result.message


def test_a_region_that_is_not_finite_is_left_again():
    result = jopt.minimize(lambda x: jnp.sum(x - jnp.log(x)), jnp.full(3, 10.0))
    assert result.converged
    np.testing.assert_allclose(result.params, 1, rtol=1e-4)


ONES = np.ones(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(3, ONES), TypeError, "fun must be a function"),
        (lambda m: m(sum, ONES, method="newton"), ValueError, "'lbfgs', 'lbfgsb'"),
        (lambda m: m(lambda x: x, ONES), TypeError, "the value of fun must be one"),
        (lambda m: m(lambda x: (x[0], x), ONES), TypeError, "pass has_aux=True"),
        (lambda m: m(lambda x: x[0], ONES, has_aux=True), TypeError, "value, aux"),
        (lambda m: m(sum, {"a": jnp.arange(2)}), TypeError, "x0 leaf 'a' has dtype"),
        (lambda m: m(sum, ONES, bounds=3), ValueError, r"bounds must be \(lower"),
        (lambda m: m(sum, ONES, bounds=(jnp.ones(3), None)), ValueError, "broadcast"),
        (lambda m: m(sum, ONES, bounds=({"a": 1}, 2)), ValueError, "trees like x0"),
        (
            lambda m: m(sum, {"w": ONES}, bounds=(0, {"w": jnp.array([1, -1.0])})),
            ValueError,
            "x0 leaf 'w', element 1: the lower bound 0.0 is not <= the upper bound -1",
        ),
        (lambda m: m(sum, ONES, bounds=(0, 1), method="lbfgs"), ValueError, "lbfgsb"),
        (lambda m: m(sum, ONES, memory=0), ValueError, "memory must be >= 1"),
        (lambda m: m(sum, ONES, tol=-1.0), ValueError, "gtol must be >= 0"),
        (
            lambda m: jax.jit(lambda x: m(sum, x, callback=print))(ONES),
            TypeError,
            "with a callback runs step by step",
        ),
    ],
)
def test_a_mistake_is_an_early_error(call, error, message):
    with pytest.raises(error, match=message):
        call(jopt.minimize)


def test_the_loop_contains_the_function_once():
    given = (rosenbrock, "lbfgs", 10, False)
    from jopt.solvers.minimization import _solve

    tests = descent.Tests(1e-6, 0.0, 100)
    text = str(jax.make_jaxpr(lambda x: _solve(given, x, (), None, tests))(START))
    assert text.count("while[") == 1
    once = str(jax.make_jaxpr(jax.grad(rosenbrock))(START))
    assert text.count("100.0:f64[]") == once.count("100.0:f64[]")
