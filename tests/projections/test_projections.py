"""Projections: against optax, against scipy's optimizer, and in every dtype."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from jopt import projections, tree
from jopt.projections import (
    projection_box,
    projection_halfspace,
    projection_hypercube,
    projection_hyperplane,
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_ball,
    projection_non_negative,
    projection_simplex,
    projection_vector,
)


RNG = np.random.default_rng(0)
NAMES = [name for name in vars(optax.projections) if name.startswith("projection_")]


def normal(size: float = 1.0) -> dict[str, Any]:
    a, b = size * RNG.normal(size=(3, 2)), size * RNG.normal(size=4)
    return {"a": jnp.asarray(a, jnp.float32), "b": [jnp.asarray(b, jnp.float32), None]}


A = normal()
LOW, HIGH = tree.full_like(A, -0.2), jax.tree.map(jnp.abs, normal())
# Each projection with the arguments after the first.
SETS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "non_negative": (projection_non_negative, ()),
    "box": (projection_box, (LOW, HIGH)),
    "linf_ball": (projection_linf_ball, (0.7,)),
    "l2_ball": (projection_l2_ball, (1.5,)),
    "l2_sphere": (projection_l2_sphere, (1.5,)),
    "simplex": (projection_simplex, (2.0,)),
    "l1_ball": (projection_l1_ball, (2.0,)),
    "l1_sphere": (projection_l1_sphere, (2.0,)),
    "vector": (projection_vector, (A,)),
    "hyperplane": (projection_hyperplane, (A, 0.8)),
    "halfspace": (projection_halfspace, (A, 0.8)),
    # Bounds by number: of an array only, in optax.
    "hypercube": (projection_hypercube, (0.7,)),
    "box of numbers": (projection_box, (-0.2, 0.5)),
}
SCALED = [
    name for name, (f, _) in SETS.items() if "scale" in inspect.signature(f).parameters
]
EACH = pytest.mark.parametrize(("project", "args"), SETS.values(), ids=SETS)


def flat(x: Any) -> np.ndarray:
    leaves = [np.asarray(leaf).astype(complex).ravel() for leaf in jax.tree.leaves(x)]
    found = np.concatenate(leaves)
    return found if found.imag.any() else found.real


def test_the_projections_of_optax_are_here_with_their_arguments() -> None:
    assert len(NAMES) == 12
    for name in NAMES:
        ours, theirs = (
            [(p.name, p.default) for p in inspect.signature(f).parameters.values()]
            for f in (getattr(projections, name), getattr(optax.projections, name))
        )
        assert ours == theirs
        text = inspect.getdoc(getattr(projections, name)) or ""
        assert ">>>" in text and all(f"{argument}:" in text for argument, _ in ours)


def by_optax(project: Any, x: Any, args: tuple[Any, ...]) -> Any:
    theirs = getattr(optax.projections, project.__name__)
    # A bound by number fails there for a tree, in spite of its documentation.
    bound = project in (projection_box, projection_hypercube)
    with jax.numpy_dtype_promotion("standard"):
        if bound and not isinstance(args[0], dict):
            return jax.tree.map(lambda leaf: theirs(leaf, *args), x)
        return theirs(x, *args)


@EACH
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_projections_are_those_of_optax(
    project: Any, args: tuple[Any, ...], size: float
) -> None:
    x = normal(size)
    wanted, found = by_optax(project, x, args), project(x, *args)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-5, atol=2e-6)


def nearest(x: np.ndarray, **constraints: Any) -> np.ndarray:
    """The nearest point under constraints, by scipy."""
    found = scipy.optimize.minimize(
        lambda y: np.sum((y - x) ** 2),
        np.full_like(x, 0.1),
        jac=lambda y: 2 * (y - x),
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-12},
        **constraints,
    )
    return found.x


def nearest_l1(x: np.ndarray, scale: float) -> np.ndarray:
    """The nearest point of the l1 ball: a difference of two nonnegative points."""
    n = len(x)
    found = scipy.optimize.minimize(
        lambda z: np.sum((z[:n] - z[n:] - x) ** 2),
        np.full(2 * n, 0.01),
        method="SLSQP",
        bounds=[(0, None)] * (2 * n),
        constraints={"type": "ineq", "fun": lambda z: scale - z.sum()},
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    return found.x[:n] - found.x[n:]


NORMAL = flat(A)
BY_SCIPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "simplex": lambda x: nearest(
        x,
        bounds=[(0, None)] * len(x),
        constraints={"type": "eq", "fun": lambda y: y.sum() - 2},
    ),
    "l1_ball": lambda x: nearest_l1(x, 2.0),
    "l2_ball": lambda x: nearest(
        x, constraints={"type": "ineq", "fun": lambda y: 1.5**2 - y @ y}
    ),
    "hyperplane": lambda x: nearest(
        x, constraints={"type": "eq", "fun": lambda y: NORMAL @ y - 0.8}
    ),
    "halfspace": lambda x: nearest(
        x, constraints={"type": "ineq", "fun": lambda y: 0.8 - NORMAL @ y}
    ),
    "box": lambda x: nearest(
        x, bounds=list(zip(flat(LOW), flat(HIGH), strict=True))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_SCIPY)
@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
def test_projections_are_the_nearest_points_by_scipy(name: str, size: float) -> None:
    project, args = SETS[name]
    x = normal(size)
    np.testing.assert_allclose(
        flat(project(x, *args)), BY_SCIPY[name](flat(x)), atol=1e-4
    )


@EACH
def test_a_projection_is_in_the_set_and_stays_there(
    project: Any, args: tuple[Any, ...]
) -> None:
    once = project(normal(3.0), *args)
    twice = project(once, *args)
    np.testing.assert_allclose(flat(twice), flat(once), rtol=1e-6, atol=1e-6)


INSIDE: list[tuple[Any, tuple[Any, ...], float]] = [
    (projection_non_negative, (), 1.0),
    (projection_box, (0.0, 1.0), 0.1),
    (projection_hypercube, (), 0.1),
    (projection_linf_ball, (), 0.1),
    (projection_l2_ball, (), 0.01),
    (projection_l1_ball, (), 0.01),
    (projection_halfspace, (jax.tree.map(jnp.abs, A), 10.0), 0.1),
]


@pytest.mark.parametrize(("project", "args", "size"), INSIDE)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_in_the_set_is_returned_as_it_is(
    project: Any, args: Any, size: float, dtype: str
) -> None:
    x = tree.cast(jax.tree.map(jnp.abs, normal(size)), dtype)
    found = project(x, *args)
    for before, after in zip(*map(jax.tree.leaves, (x, found)), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    # And its derivative is that of the identity, at zero too.
    x = tree.zeros_like(x, "float32")
    if project not in (projection_non_negative, projection_box, projection_hypercube):
        slope = jax.grad(lambda x: tree.vdot(project(x, *args), A))(x)
        np.testing.assert_array_equal(flat(slope), flat(A))


@EACH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_leaves_are_rounded_once(
    project: Any, args: tuple[Any, ...], dtype: str
) -> None:
    x = tree.cast(normal(300.0), dtype)
    wide = project(tree.cast(x, jnp.float32), *args)
    found = project(x, *args)
    assert tree.dtype(found) == jnp.dtype(dtype)
    np.testing.assert_array_equal(flat(found), flat(tree.cast(wide, dtype)))
    assert jax.eval_shape(project, x, *args)["b"][1] is None


@EACH
@pytest.mark.parametrize("size", [1e-30, 1e10, 1e30])
def test_any_magnitude_is_projected_exactly(
    project: Any, args: tuple[Any, ...], size: float
) -> None:
    x = normal(size)
    with jax.enable_x64(True):
        wide = tuple(
            tree.cast(z, jnp.float64) if isinstance(z, dict) else z for z in args
        )
        wanted = flat(by_optax(project, tree.cast(x, jnp.float64), wide))
    found = flat(project(x, *args))
    atol = 1e-6 * max(1e-30, np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=atol)


def test_a_simplex_does_not_mind_how_far_away_it_is() -> None:
    x = jnp.array([0.0, 0.25, 0.5, -3.0])
    near, far = projection_simplex(x), projection_simplex(x + 2.0**20)
    np.testing.assert_allclose(near, far, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_planes_with_normals_of_any_magnitude(size: float) -> None:
    x = normal()
    a = tree.scale(size, A)
    for project, args, same in [
        (projection_vector, (), ()),
        (projection_hyperplane, (0.8 * size,), (0.8,)),
        (projection_halfspace, (0.8 * size,), (0.8,)),
    ]:
        found, wanted = project(x, a, *args), project(x, A, *same)
        np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [10, 10**6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_large_simplex_has_the_right_sum(count: int, scale: float) -> None:
    x = jnp.asarray(RNG.normal(size=count), jnp.float32)
    found = np.asarray(jax.jit(projection_simplex)(x, scale)).astype(float)
    np.testing.assert_allclose(found.sum(), scale, rtol=2e-5)
    equal = np.asarray(projection_simplex(jnp.full(count, 7.0), scale))
    np.testing.assert_allclose(equal, scale / count, rtol=1e-5)


def test_spheres_have_points_for_zero() -> None:
    zero = {"a": jnp.zeros(3), "b": jnp.zeros((), jnp.bfloat16)}
    assert tree.norm(projection_l2_sphere(zero, 6.0)) == 6
    assert tree.norm(projection_l1_sphere(zero, 8.0), ord=1) == 8
    # optax leaves the zeros out: 0.55 for the second, and nothing for the first.
    np.testing.assert_allclose(
        projection_l1_sphere(jnp.array([0.0, -0.1])), [0.45, -0.55], rtol=1e-6
    )
    assert not flat(projection_vector(A, tree.zeros_like(A))).any()


def test_complex_leaves_are_projected_by_their_absolute_values() -> None:
    x = {"z": jnp.array([3 + 4j, 0.3j, -1], jnp.complex64), "r": jnp.array([2.0])}
    pairs = {"z": jnp.array([[3, 4], [0, 0.3], [-1, 0]]), "r": jnp.array([[2.0, 0]])}
    for project in (projection_l2_ball, projection_l2_sphere):
        found, wanted = project(x, 1.5), project(pairs, 1.5)
        np.testing.assert_allclose(found["z"].real, wanted["z"][:, 0], rtol=1e-6)
        np.testing.assert_allclose(found["z"].imag, wanted["z"][:, 1], rtol=1e-6)
    found = projection_linf_ball(x)
    np.testing.assert_allclose(found["z"], [0.6 + 0.8j, 0.3j, -1], rtol=1e-6)
    for project in (projection_l1_ball, projection_l1_sphere):
        sizes = project(jax.tree.map(jnp.abs, x), 4.0)
        found = project(x, 4.0)
        np.testing.assert_allclose(jnp.abs(found["z"]), sizes["z"], rtol=1e-5)
        np.testing.assert_allclose(
            jnp.angle(found["z"])[:1], jnp.angle(x["z"])[:1], rtol=1e-6
        )
    for project in (projection_non_negative, projection_simplex, projection_hypercube):
        with pytest.raises(TypeError, match="leaf 'z' has dtype complex64"):
            project(x)


def test_planes_of_complex_numbers() -> None:
    x, a = (
        jnp.asarray(RNG.normal(size=3) + 1j * RNG.normal(size=3), jnp.complex64)
        for _ in range(2)
    )
    along = projection_vector(x, a)
    # What is left is orthogonal; in optax it is not.
    np.testing.assert_allclose(jnp.vdot(a, x - along), 0, atol=1e-6)
    np.testing.assert_allclose(
        jnp.vdot(a, projection_hyperplane(x, a, 2.0)), 2, rtol=1e-5
    )
    bound = float(jnp.real(jnp.vdot(a, x))) - 5  # outside, whatever was drawn
    inside = projection_halfspace(x, a, bound)
    np.testing.assert_allclose(jnp.real(jnp.vdot(a, inside)), bound, 1e-5, 1e-5)


@EACH
def test_projections_under_jit_vmap_and_grad(
    project: Any, args: tuple[Any, ...]
) -> None:
    x = normal()

    def f(x: Any) -> jax.Array:
        return tree.vdot(project(x, *args), A)

    rows = jax.tree.map(lambda z: jnp.stack([z, 3 * z]), x)
    found, slopes = jax.jit(jax.vmap(jax.value_and_grad(f)))(rows)
    np.testing.assert_allclose(found[0], f(x), rtol=1e-5, atol=1e-6)
    # The derivative in a direction, by differences.
    direction = normal()
    single = tree.vdot(jax.tree.map(lambda z: z[0], slopes), direction)
    with jax.enable_x64(True):
        args = tuple(
            tree.cast(z, jnp.float64) if isinstance(z, dict) else z for z in args
        )
        x, direction = tree.cast(x, jnp.float64), tree.cast(direction, jnp.float64)
        step = tree.scale(1e-6, direction)
        up, down = f(tree.add(x, step)), f(tree.sub(x, step))
        exact = tree.vdot(jax.grad(f)(x), direction)
        np.testing.assert_allclose(exact, (up - down) / 2e-6, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(single, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCALED)
def test_the_scale_can_be_traced_and_differentiated(name: str) -> None:
    project, (scale,) = SETS[name]
    x = normal(3.0)

    def f(scale: Any) -> jax.Array:
        return tree.vdot(project(x, scale), A)

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(f))(scale)
        difference = (f(scale + 1e-3) - f(scale - 1e-3)) / 2e-3
        np.testing.assert_allclose(slope, difference, rtol=2e-2, atol=2e-3)


@EACH
def test_a_nan_is_not_hidden(project: Any, args: tuple[Any, ...]) -> None:
    x = normal()
    x["b"][0] = x["b"][0].at[1].set(jnp.nan)
    assert np.isnan(flat(project(x, *args))).any()


def test_whole_and_python_numbers_are_projected() -> None:
    x = {"a": jnp.array([3, -4]), "b": 0.5}
    np.testing.assert_allclose(projection_l2_ball(x)["a"], [0.597, -0.796], atol=1e-3)
    assert projection_simplex(x)["a"].dtype == jnp.float32
    assert projection_non_negative(x)["a"].dtype == jnp.int32
    for project in (projection_simplex, projection_l1_ball, projection_l2_sphere):
        assert project({}) == {}
        assert project({"a": jnp.zeros((0, 2))})["a"].shape == (0, 2)


MISUSE: list[tuple[Any, type[Exception], str]] = [
    (lambda: projection_l2_ball(A, -1.0), ValueError, "scale must be >= 0"),
    (lambda: projection_simplex(A, 0.0), ValueError, "scale must be > 0"),
    (lambda: projection_l1_ball(A, 0.0), ValueError, "scale must be > 0"),
    (lambda: projection_hypercube(A, -1), ValueError, "scale must be >= 0"),
    (lambda: projection_box(A, {"a": 0.0}, 1.0), ValueError, "only in tree: 'b/0'"),
    (lambda: projection_vector(A, {"a": 0.0}), ValueError, "only in x: 'b/0'"),
    (lambda: projection_hyperplane(A, A, jnp.ones(2)), TypeError, "b must be one real"),
    (lambda: projection_halfspace(A, A, 1j), TypeError, "b must be one real number"),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISUSE)
def test_misuse_is_explained(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
