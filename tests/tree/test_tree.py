"""PyTree arithmetic: norms that are exact for any magnitude, counts, paths."""

from __future__ import annotations

import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jopt import tree
from jopt.tree.paths import map_leaves


RNG = np.random.default_rng(0)


def exact_norm(arrays: Any) -> float:
    """By Python's exact sum, scaled by a power of two: no square is out of range."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(arrays)]
    parts = [
        np.ravel(part(x.astype(complex))) for x in leaves for part in (np.real, np.imag)
    ]
    numbers = np.concatenate([np.zeros(1), *parts]).astype(float)
    largest = np.max(np.abs(numbers))
    if not math.isfinite(largest) or largest == 0:
        return float(largest)
    scale = 2.0 ** math.floor(math.log2(largest))
    return scale * math.sqrt(math.fsum((numbers / scale) ** 2))


def normal(shape: Any, size: float = 1.0, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(size * RNG.normal(size=shape), dtype)


TREES: dict[str, Any] = {
    "one array": normal((7, 5)),
    "a bare scalar": jnp.float32(-3.0),
    "many leaves": {"a": [normal((3,)), normal((2, 2))], "b": {"c": normal(())}},
    "float16 of 300": {"a": jnp.full((64, 64), 300.0, jnp.float16)},
    "largest float16": jnp.full(1000, 65504.0, jnp.float16),
    "smallest float16": jnp.full(3, 6e-8, jnp.float16),
    "bfloat16": normal((1000,), dtype=jnp.bfloat16),
    "large bfloat16": normal((10,), 1e30, jnp.bfloat16),
    "1e30": jnp.full(1000, 1e30),
    "5e37": jnp.array([5e37, 1e37]),
    "1e-30": jnp.full(1000, 1e-30),
    "1e-35": normal((100,), 1e-35),
    "3e-23, whose squares are subnormal": normal((100,), 3e-23),
    "1e30 and 1e-30": {"a": jnp.float32(1e30), "b": jnp.full(10, 1e-30)},
    "1e25 in one of many": {"a": normal((50,)), "b": normal((3,), 1e25)},
    "mixed dtypes": {"a": normal((9,), dtype=jnp.float16), "b": normal((5,)),
                     "c": normal((4,), dtype=jnp.bfloat16)},
    "float16 beside 1e20": {"a": jnp.full(4, 3e4, jnp.float16), "b": jnp.float32(1e20)},
    "squares that vanish beside one": jnp.array([1e-17] + 1000 * [1e-19]),
    "zeros": {"a": jnp.zeros((3, 3)), "b": jnp.zeros(2, jnp.float16)},
    "a zero beside a number": {"a": jnp.zeros(3), "b": jnp.float32(1e-25)},
    "None": {"a": None, "b": jnp.array([3.0, 4.0])},
    "only None": {"a": None},
    "nothing": {},
    "zero-size": {"a": jnp.zeros((0, 3)), "b": jnp.array([3.0, 4.0])},
    "only zero-size": jnp.zeros((0,)),
    "complex": {"a": jnp.array([3 + 4j, -12j], jnp.complex64), "b": jnp.array([84.0])},
    "large complex": jnp.array([3e30 + 4e30j], jnp.complex64),
    "Python numbers": {"a": 3.0, "b": 4.0},
    "NumPy": {"a": np.ones((2, 2), np.float32)},
    "forty equal leaves": [normal((3,), 10.0**i) for i in range(-20, 20)],
    "infinite": {"a": jnp.array([1.0, jnp.inf]), "b": jnp.ones(2)},
    "minus infinite": jnp.array([-jnp.inf], jnp.float16),
}  # fmt: skip


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("case", TREES.values(), ids=TREES)
def test_the_norm_is_exact_for_any_magnitude_and_dtype(case: Any, jit: bool) -> None:
    found = (jax.jit(lambda x: tree.norm(x)) if jit else tree.norm)(case)
    assert (found.shape, found.dtype, found.weak_type) == ((), jnp.float32, False)
    np.testing.assert_allclose(found, exact_norm(case), rtol=1e-6)


def test_a_nan_anywhere_makes_the_norm_nan() -> None:
    for case in (
        jnp.array([1.0, jnp.nan]),
        {"a": jnp.ones(3), "b": jnp.array([jnp.nan], jnp.float16)},
        {"a": jnp.array([jnp.inf]), "b": jnp.array([jnp.nan])},
        {"a": jnp.float32(1e30), "b": jnp.array([jnp.nan])},
    ):
        assert jnp.isnan(tree.norm(case))


def test_the_norm_of_float64_is_a_float64() -> None:
    with jax.enable_x64(True):
        case = {
            "a": jnp.array([1.0, 1e-9]),
            "b": jnp.float32(1e-5),
            "c": jnp.array(1e200),
        }
        assert tree.norm(case).dtype == jnp.float64
        np.testing.assert_allclose(tree.norm(case), 1e200, rtol=1e-15)
        case.pop("c")
        np.testing.assert_allclose(tree.norm(case), exact_norm(case), rtol=1e-15)
        # As are all scalars under x64, also of trees that are not.
        assert tree.norm(jnp.ones(2, jnp.float16)).dtype == jnp.float64


def test_norms_under_vmap_are_those_of_each_row() -> None:
    rows = jnp.stack([jnp.full(3, size) for size in (1.0, 1e30, 1e-30, 0.0, jnp.inf)])
    found = jax.vmap(lambda x: tree.norm({"a": x, "b": 2 * x}))(rows)
    np.testing.assert_allclose(found[:3] / rows[:3, 0], [math.sqrt(15)] * 3, rtol=1e-6)
    np.testing.assert_array_equal(found[3:], [0.0, jnp.inf])


def test_the_norm_of_the_largest_numbers_is_exact() -> None:
    case = jnp.array([3e38, 1e38])
    np.testing.assert_allclose(tree.norm(case), exact_norm(case), rtol=3e-7)


@pytest.mark.parametrize(
    "size",
    [1.0, 1e15, 1e-15, 1e30, 1e-30],
)
def test_the_gradient_of_the_norm_is_the_direction(size: float) -> None:
    found = jax.grad(tree.norm)(size * jnp.array([3.0, -4.0]))
    np.testing.assert_allclose(found, [0.6, -0.8], rtol=1e-6)


AXES = [
    (jnp.array([[3.0, 4.0], [6.0, 8.0]]), 1, [[5.0], [10.0]]),
    (jnp.array([[3.0, 5.0], [4.0, 12.0]]), 0, [[5.0, 13.0]]),
    (jnp.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0]]), 1, [[5e30], [5e-30], [0]]),
    (jnp.array([[1.0, 2.0], [2.0, 4.0]]), (0, 1), [[5.0]]),
    (jnp.array([[1.0, 2.0], [2.0, 4.0]]), None, [[5.0]]),
    (jnp.array([3 + 4j], jnp.complex64), None, [5.0]),
    (jnp.array([jnp.inf, 1.0]), 0, [jnp.inf]),
    (jnp.zeros((0, 2)), 0, [[0.0, 0.0]]),
]


@pytest.mark.parametrize(("x", "axis", "norms"), AXES)
def test_norms_along_axes_keep_the_axes(x: jax.Array, axis: Any, norms: Any) -> None:
    found = tree.norm_along(x, axis)
    assert not jnp.iscomplexobj(found)
    np.testing.assert_allclose(found, np.array(norms, np.float32), rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.999999])
@pytest.mark.parametrize("t", [1, 2, 10, 1000, 10**6])
def test_one_minus_a_power_has_all_its_digits(decay: float, t: int) -> None:
    expected = -math.expm1(t * math.log(decay)) if decay else 1.0
    constant = tree.one_minus_power(decay, jnp.float32(t))
    np.testing.assert_allclose(constant, expected, rtol=3e-7)
    # A traced decay is itself rounded, by up to 3e-8, before anything is computed.
    traced = tree.one_minus_power(jnp.float32(decay), jnp.float32(t))
    rounded = float(np.float32(decay))
    expected = -math.expm1(t * math.log(rounded)) if decay else 1.0
    np.testing.assert_allclose(traced, expected, rtol=1e-5)


def test_a_count_stays_at_its_largest() -> None:
    for dtype in (jnp.int32, jnp.uint8):
        largest = jnp.iinfo(dtype).max
        for count, after in [(0, 1), (largest - 1, largest), (largest, largest)]:
            found = jax.jit(tree.safe_increment)(jnp.asarray(count, dtype))
            assert (found, found.dtype) == (after, dtype)


def test_squares_of_complex_numbers_are_real() -> None:
    found = tree.abs_sq(jnp.array([3 + 4j, 1j], jnp.complex64))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [25.0, 1.0])
    np.testing.assert_array_equal(tree.abs_sq(jnp.array([-3.0])), [9.0])


COMPUTE = {
    "float16": "float32",
    "bfloat16": "float32",
    "float8_e4m3fn": "float32",
    "float32": "float32",
    "float64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
}


@pytest.mark.parametrize(("stored", "computed"), COMPUTE.items())
def test_leaves_are_computed_in_float32_or_wider(stored: str, computed: str) -> None:
    assert tree.compute_dtype(jnp.dtype(stored)) == jnp.dtype(computed)


def test_scalars_are_float32_and_float64_under_x64() -> None:
    assert tree.scalar_dtype() == jnp.float32
    with jax.enable_x64(True):
        assert tree.scalar_dtype() == jnp.float64


PATHS: list[tuple[Any, list[str]]] = [
    (1.0, [""]),
    ({"a": {"b": 1.0}, "c": 2.0}, ["a/b", "c"]),
    ([1.0, (2.0, {"x": 3.0})], ["0", "1/0", "1/1/x"]),
    ({"a": None, "b": 1.0}, ["b"]),
    ({1: 1.0, 2: {"value": 3.0}}, ["1", "2/value"]),
    (nnx.State({"w": nnx.Param(jnp.ones(1))}), ["w"]),
    (nnx.State({"value": nnx.Param(jnp.ones(1))}), ["value"]),
    ({}, []),
]


@pytest.mark.parametrize(("case", "names"), PATHS, ids=[str(n) for _, n in PATHS])
def test_a_path_is_names_with_slashes(case: Any, names: list[str]) -> None:
    assert [name for name, _ in tree.leaves_with_names(case)] == names


def test_the_nones_have_paths_when_they_are_asked_for() -> None:
    named = tree.leaves_with_names({"a": None, "b": {"c": None}, "d": 1.0}, none=True)
    assert named == [("a", None), ("b/c", None), ("d", 1.0)]


# The functions of optax.tree: the same names, arguments and numbers.

NAMES = sorted(n for n in vars(optax.tree) if not n.startswith("_"))
FUNCTIONS = [n for n in NAMES if inspect.isfunction(getattr(optax.tree, n))]


def test_the_functions_of_optax_are_here() -> None:
    assert len(FUNCTIONS) > 30
    assert not set(FUNCTIONS) - set(tree.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_arguments_are_those_of_optax(name: str) -> None:
    ours, theirs = (
        list(inspect.signature(getattr(module, name)).parameters.values())
        for module in (tree, optax.tree)
    )
    for mine, other in zip(ours[: len(theirs)], theirs, strict=True):
        if mine.kind is not mine.POSITIONAL_ONLY:
            assert (mine.name, mine.kind) == (other.name, other.kind)
        if other.default is not other.empty:
            assert mine.default == other.default


@pytest.mark.parametrize("name", sorted(set(tree.__all__) - {"NamedTupleKey"}))
def test_every_function_has_a_complete_docstring(name: str) -> None:
    function = getattr(tree, name)
    text = inspect.getdoc(function) or ""
    assert ">>>" in text, "an example"
    for parameter in inspect.signature(function).parameters.values():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        assert f"{stars.get(parameter.kind, '')}{parameter.name}:" in text


X = {"a": normal((3, 2)), "b": [normal((4,)), None], "c": normal(())}
Y = {"a": normal((3, 2)), "b": [normal((4,)), None], "c": normal(())}
Z = jax.tree.map(jax.lax.complex, X, Y)
INTS = {"a": jnp.array([1, -2, 3]), "b": jnp.int32(7)}
HALF = jax.tree.map(lambda x: x.astype(jnp.float16), X)
V = jax.tree.map(jnp.abs, Y)  # a second moment
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("add", (X, Y)),
    ("add", (X, Y, X, Y)),
    ("add", (INTS, INTS)),
    ("add", ({"a": jnp.array([True])}, {"a": jnp.array([True])})),
    ("add", (X, HALF)),
    ("add", (INTS, jax.tree.map(lambda x: 0.5, INTS))),
    ("add", (X, Z)),
    ("sub", (X, Y)),
    ("sub", (INTS, INTS)),
    ("mul", (X, Y)),
    ("mul", (Z, Z)),
    ("mul", ({"a": jnp.ones(3)}, {"a": jnp.float32(2)})),
    ("div", (X, Y)),
    ("div", (INTS, INTS)),
    ("scale", (0.3, X)),
    ("scale", (jnp.float32(0.3), X)),
    ("scale", (2, INTS)),
    ("scale", (0.5, INTS)),
    ("scale", (1j, X)),
    ("scale", (0.1, HALF)),
    ("add_scale", (X, 0.3, Y)),
    ("add_scale", (Z, jnp.float32(0.3), Z)),
    ("add_scale", ({"a": None, "b": X}, 0.3, {"a": None, "b": Y})),
    ("allclose", (X, X)),
    ("allclose", (X, Y)),
    ("allclose", (X, Y, 10.0, 10.0)),
    ("allclose", ({"a": jnp.array([jnp.nan])}, {"a": jnp.array([jnp.nan])})),
    ("allclose", ({"a": jnp.array([jnp.nan])},) * 2 + (0, 0, True)),
    ("allclose", ({}, {})),
    ("batch_shape", (X,)),
    ("batch_shape", (X, (2, 5))),
    ("cast", (X, jnp.bfloat16)),
    ("cast", (X, None)),
    ("cast", (INTS, jnp.float32)),
    ("cast_like", (X, HALF)),
    ("cast_like", (X, {"a": 1.0, "b": [jnp.ones(4, jnp.bfloat16), None], "c": 2})),
    ("clip", (X, -0.5, 0.5)),
    ("clip", (X, None, 0.5)),
    ("clip", (X, -0.5)),
    ("clip", (X,)),
    ("clip", (INTS, 0, 2)),
    ("clip", (INTS, 0.5, 2.5)),
    ("clip", (HALF, -0.5, 0.5)),
    ("conj", (Z,)),
    ("conj", (X,)),
    ("dtype", (X,)),
    ("dtype", ({},)),
    ("dtype", ([X, HALF], "promote")),
    ("dtype", ([X, HALF], "highest")),
    ("dtype", ([X, HALF], "lowest")),
    ("dtype", ([jnp.zeros(2, jnp.bfloat16), HALF], "promote")),
    ("dtype", ([jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.uint32)], "promote")),
    ("full_like", (X, 7.0)),
    ("full_like", (X, 7.0, jnp.bfloat16)),
    ("full_like", (INTS, 7)),
    ("ones_like", (HALF,)),
    ("ones_like", (X, int)),
    ("zeros_like", (HALF,)),
    ("zeros_like", (X, jnp.bfloat16)),
    ("max", (X,)),
    ("max", ({},)),
    ("max", ({"a": jnp.zeros((0, 3)), "b": -jnp.ones(2)},)),
    ("min", (X,)),
    ("min", ({},)),
    ("min", ({"a": jnp.array([1.0, jnp.nan])},)),
    ("norm", (X,)),
    ("norm", (X, 2)),
    ("norm", (X, 1)),
    ("norm", (X, jnp.inf)),
    ("norm", (X, "inf")),
    ("norm", (X, "infinity")),
    ("norm", (X, None, True)),
    ("norm", (X, 1, True)),
    ("norm", (X, jnp.inf, True)),
    ("norm", (Z, 1)),
    ("norm", (Z, jnp.inf)),
    ("norm", (Z, 2, True)),
    ("random_like", (jax.random.key(0), X)),
    ("random_like", (jax.random.PRNGKey(1), X, jax.random.uniform)),
    ("random_like", (jax.random.key(2), X, jax.random.rademacher, jnp.int8)),
    ("random_like", (jax.random.key(3), {})),
    ("random_like", (jax.random.key(4), Z)),
    ("real", (Z,)),
    ("real", (X,)),
    ("split_key_like", (jax.random.PRNGKey(0), X)),
    ("sum", (X,)),
    ("sum", (X, True)),
    ("sum", (Z,)),
    ("sum", (INTS,)),
    ("sum", ({"a": jnp.array([True, True, False])},)),
    ("unwrap_random_key_data", ({"a": jax.random.key(3), "b": jnp.ones(2)},)),
    ("bias_correction", (X, 0.9, jnp.int32(3))),
    ("bias_correction", (Z, jnp.float32(0.9), jnp.int32(1))),
    ("update_moment", (X, Y, 0.9, 1)),
    ("update_moment", (X, V, 0.9, 2)),
    ("update_moment", (Z, Z, 0.9, 2)),
    ("update_moment", (X, V, jnp.float32(0.9), 2)),
    ("update_moment_per_elem_norm", (X, V, 0.9, 2)),
    ("update_moment_per_elem_norm", (Z, V, 0.9, 2)),
    ("update_moment_per_elem_norm", (Z, V, 0.9, 3)),
    ("update_moment_per_elem_norm", (X, V, 0.9, 4)),
    ("update_infinity_moment", (X, V, 0.9, 1e-8)),
    ("update_infinity_moment", (Z, V, 0.9, 1e-3)),
    ("vdot", (X, Y)),
    ("vdot", (Z, Z)),
    ("vdot", (INTS, INTS)),
    ("where", (True, X, Y)),
    ("where", (jnp.bool_(False), X, Y)),
    ("where", (True, X, HALF)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "args"), CALLS, ids=[f"{i}-{n}" for i, (n, _) in enumerate(CALLS)]
)
def test_the_numbers_are_those_of_optax(name: str, args: Any) -> None:
    found = getattr(tree, name)(*args)
    with jax.numpy_dtype_promotion("standard"):
        wanted = getattr(optax.tree, name)(*args)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if isinstance(x, np.dtype):
            assert x == y
            continue
        assert np.shape(x) == np.shape(y)
        if not isinstance(y, float | int):  # of an empty tree
            assert x.dtype == y.dtype
        tolerance = 1e-3 if x.dtype == jnp.float16 else 1e-6
        np.testing.assert_allclose(x, y, tolerance, tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_leaf_is_rounded_once_and_keeps_its_dtype(dtype: str) -> None:
    x, y = normal((1000,), dtype=dtype), normal((1000,), dtype=dtype)
    s, t = jnp.float32(0.1), np.float32(0.1)
    a, b = (np.asarray(z).astype(np.float32) for z in (x, y))
    for found, exact in [
        (tree.scale(s, x), t * a),
        (tree.scale(0.1, x), t * a),
        (tree.add(x, y, x), a + b + a),
        (tree.sub(x, y), a - b),
        (tree.mul(x, y), a * b),
        (tree.div(x, y), a / b),
        (tree.add_scale(x, s, y), a + t * b),
        (tree.clip(x, -s, s), np.clip(a, -t, t)),
        (tree.update_moment(x, y, 0.9, 2), np.float32(0.9) * b + t * a * a),
    ]:
        assert found.dtype == jnp.dtype(dtype)
        exact = exact.astype(jnp.dtype(dtype)).astype(np.float32)
        np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0, atol=0)


def test_float16_adds_up_without_overflow() -> None:
    big = {"a": jnp.full((100,), 300.0, jnp.float16), "b": jnp.float16(60000.0)}
    assert tree.sum(big) == 90000
    assert tree.vdot(big, big) == 100 * 300.0**2 + 60000.0**2
    assert tree.norm(big, ord=1) == 90000
    np.testing.assert_allclose(tree.norm(big, squared=True), 3.609e9, rtol=1e-6)
    with jax.numpy_dtype_promotion("standard"):
        assert jnp.isinf(optax.tree.vdot(big, big))
        assert jnp.isinf(optax.tree.norm(big))
        assert jnp.isinf(optax.tree.norm(jnp.full(3, 1e25)))
    np.testing.assert_allclose(tree.norm(jnp.full(4, 1e25)), 2e25, rtol=1e-6)


def test_bfloat16_adds_up_without_standing_still() -> None:
    # 256 + 1 is 256 in bfloat16.
    ones = [jnp.ones((), jnp.bfloat16)] * 1000
    assert tree.sum(ones) == tree.sum(ones, True) == tree.vdot(ones, ones) == 1000


def test_whole_numbers_stay_exact() -> None:
    assert tree.max([jnp.int32(2**24 + 1), jnp.int32(-5)]) == 2**24 + 1
    assert tree.min([jnp.int32(2**24 + 1)]) == 2**24 + 1
    tiny = jnp.full(200, 100, jnp.int8)
    assert tree.sum(tiny) == 20000
    assert tree.vdot(tiny, tiny) == 2_000_000
    assert tree.norm({"a": jnp.array([3, -4], jnp.int8)}) == 5
    assert tree.norm({"a": jnp.array([3, 4], jnp.uint8)}, ord=1) == 7


def test_the_size_of_a_tree() -> None:
    shape = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    assert tree.size({"a": shape, "b": 1.0, "c": None}) == 13
    assert tree.size({}) == 0


def test_a_number_does_not_change_a_dtype_under_x64() -> None:
    with jax.enable_x64(True):
        x, s = {"a": jnp.ones(2, jnp.float32)}, jnp.asarray(1e-300)
        assert tree.scale(s, x)["a"].dtype == jnp.float32
        # The number has its width until the one rounding.
        assert tree.scale(jnp.asarray(1e60), {"a": jnp.float32(1e-30)})["a"] > 9e29
        for found in (tree.sum(x), tree.vdot(x, x), tree.max(x), tree.norm(x, 1)):
            assert found.dtype == jnp.float64
        moments = tree.update_moment(x, tree.zeros_like(x, "bfloat16"), 0.9, 2)
        assert moments["a"].dtype == jnp.bfloat16


def test_moments_are_stored_in_their_own_dtype() -> None:
    g, m = {"a": normal((5,))}, {"a": jnp.zeros(5, jnp.bfloat16)}
    for found in (
        tree.update_moment(g, m, 0.9, 2),
        tree.update_moment_per_elem_norm(g, m, 0.9, 2),
        tree.update_infinity_moment(g, m, 0.9, 0.0),
    ):
        assert found["a"].dtype == jnp.bfloat16
    kept = tree.update_moment({"a": None}, m, 0.9, 2)
    assert kept["a"] is m["a"]


def test_an_odd_power_of_the_norm_is_positive() -> None:
    found = tree.update_moment_per_elem_norm(
        jnp.array([-2.0]), jnp.zeros(1), decay=0.5, order=3
    )
    np.testing.assert_allclose(found, [4.0])


def test_a_complex_moment_in_a_real_slot_is_an_error() -> None:
    with pytest.raises(TypeError, match="imaginary") as error:
        tree.update_moment({"a": jnp.array([1j])}, {"a": jnp.zeros(1)}, 0.9, 2)
    assert "leaf 'a'" in error.value.__notes__[0]
    with pytest.raises(TypeError, match=r"tree\.real"):
        tree.cast(jnp.array([1j]), jnp.float32)


TWO_TREES = [
    lambda x, y: tree.add(x, y),
    lambda x, y: tree.mul(x, y),
    lambda x, y: tree.add_scale(x, 0.5, y),
    lambda x, y: tree.where(True, x, y),
    lambda x, y: tree.vdot(x, y),
    lambda x, y: tree.allclose(x, y),
    lambda x, y: tree.update_moment(x, y, 0.9, 2),
]
MISMATCHES: list[tuple[Any, Any, str]] = [
    ({"a": jnp.ones(2), "b": jnp.ones(2)}, {"a": jnp.ones(2)}, "only in .*: 'b'"),
    ({"a": jnp.ones(2)}, {"a": jnp.ones(2), "c": {"d": 1.0}}, "only in .*: 'c/d'"),
    ({"a": jnp.ones(2)}, {"a": [jnp.ones(2)]}, "'a'; only in .*: 'a/0'"),
    ({"a": jnp.ones(2)}, {"a": None}, "only in .*: 'a'"),
    ([jnp.ones(2)], (jnp.ones(2),), "in a list and in a tuple"),
    ({"a": jnp.ones(2)}, {"a": jnp.ones(3)}, r"\(2,\) in .*, \(3,\) in"),
    ({"a": jnp.ones((2, 1))}, {"a": jnp.ones((2, 3))}, "Nothing is broadcast"),
]


@pytest.mark.parametrize("function", TWO_TREES)
@pytest.mark.parametrize(("x", "y", "message"), MISMATCHES)
def test_trees_that_do_not_match_are_an_error_that_says_where(
    function: Any, x: Any, y: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        function(x, y)
    if "shapes" in str(error.value):
        assert "leaf 'a'" in error.value.__notes__[0]


MISUSE: list[tuple[Any, type[Exception], str]] = [
    (lambda: tree.scale(jnp.ones(2), X), TypeError, "scalar must be one number"),
    (lambda: tree.scale("2", X), TypeError, "scalar must be one number"),
    (lambda: tree.add_scale(X, jnp.ones(2), Y), TypeError, "scalar must be one"),
    (lambda: tree.norm(X, ord=3), ValueError, "ord must be None, 1, 2 or jnp.inf"),
    (lambda: tree.dtype([X, HALF]), ValueError, "float16 .'1/c'.*, float32 .'0/c'"),
    (lambda: tree.dtype(X, "best"), ValueError, "mixed_dtype_handler must be one of"),
    (
        lambda: tree.dtype([jnp.zeros(2, jnp.bfloat16), HALF], "highest"),
        ValueError,
        "none of .* is the highest",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISUSE)
def test_misuse_is_explained(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("ord", [None, 1, jnp.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_norms_of_other_orders_under_jit_and_grad(ord: Any, dtype: str) -> None:
    x = {"a": normal((3,), dtype=jnp.float32).astype(dtype), "b": None}
    numbers = np.asarray(x["a"]).astype(complex)
    found = jax.jit(tree.norm, static_argnames="ord")(x, ord=ord)
    np.testing.assert_allclose(found, np.linalg.norm(numbers, ord), rtol=1e-6)
    slope = jax.grad(lambda x: tree.norm(x, ord))(x)
    assert slope["a"].dtype == x["a"].dtype
    np.testing.assert_allclose(
        jnp.real(jnp.sum(slope["a"] * x["a"]).astype(complex)), found, rtol=2e-2
    )


def test_the_gradient_of_the_norm_of_zero_is_zero() -> None:
    for norm in (tree.norm, lambda x: tree.norm(x, squared=True)):
        assert not jax.grad(norm)(jnp.zeros(3)).any()
        # Under vmap both branches of a condition are computed.
        rows = jnp.stack([jnp.zeros(3), jnp.array([3.0, 0.0, 4.0])])
        slopes = jax.vmap(jax.grad(norm))(rows)
        assert not slopes[0].any()
        np.testing.assert_allclose(slopes[1] / slopes[1, 0], [1, 0, 4 / 3], rtol=1e-6)
    along = jax.grad(lambda x: tree.norm_along(x, 1).sum())(rows)
    np.testing.assert_allclose(along, [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)


def test_arithmetic_can_be_jitted_mapped_and_differentiated() -> None:
    def f(x: Any, s: Any) -> jax.Array:
        y = tree.add_scale(x, s, tree.mul(x, x))
        return tree.sum(tree.where(s > 0, tree.scale(s, y), x)) + tree.vdot(x, y)

    x = {"a": normal((3,)), "b": None}
    both = jax.tree.map(lambda z: jnp.stack([z, 2 * z]), x)
    found = jax.jit(jax.vmap(jax.value_and_grad(f), in_axes=(0, None)))(both, 0.5)
    one = jax.value_and_grad(f)(x, 0.5)
    np.testing.assert_allclose(found[0][0], one[0], rtol=1e-6)
    np.testing.assert_allclose(found[1]["a"][0], one[1]["a"], rtol=1e-6)


def test_new_trees_are_sharded_like_the_old_ones_also_under_jit() -> None:
    mesh = jax.make_mesh((8,), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("d"))
    x = {"a": jax.device_put(jnp.ones((16, 2)), sharding)}
    for make in (tree.zeros_like, jax.jit(tree.ones_like)):
        assert make(x)["a"].sharding.is_equivalent_to(sharding, 2)


def test_new_trees_take_shapes_and_have_strong_types() -> None:
    shape = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert tree.zeros_like(shape).shape == (2, 3)
    assert tree.random_like(jax.random.key(0), shape).dtype == jnp.bfloat16
    for found in (tree.zeros_like(1.0), tree.scale(2.0, 3.0), tree.add(1.0, 2.0)):
        assert (found.dtype, found.weak_type) == (jnp.float32, False)


def test_random_bfloat16_has_the_tails_of_float32() -> None:
    x = jnp.zeros(200_000, jnp.bfloat16)
    found = tree.random_like(jax.random.key(0), x)
    assert found.dtype == jnp.bfloat16
    wide = jax.random.normal(jax.random.split(jax.random.key(0), 1)[0], x.shape)
    np.testing.assert_array_equal(found, wide.astype(jnp.bfloat16))
    assert jnp.abs(found).max() > 4


def test_eight_bit_floats_can_be_computed_with() -> None:
    x = {"a": jnp.array([1.0, 2.0], jnp.float8_e4m3fn)}
    for found in (tree.scale(jnp.float32(2.0), x), tree.add(x, x)):
        assert found["a"].dtype == jnp.float8_e4m3fn
        np.testing.assert_array_equal(found["a"].astype(jnp.float32), [2.0, 4.0])
    assert tree.sum(x) == 3


def test_leaves_with_one_path_are_all_seen() -> None:
    arrays = {"a": {"b": jnp.ones(1, jnp.bfloat16)}, "a/b": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"several dtypes: bfloat16 .*, float32 "):
        tree.dtype(arrays)
    with pytest.raises(ValueError, match=r"only in x: 'a/b' \(the keys 'a', 'b'\)$"):
        map_leaves(lambda x, y: x, x={"a": {"b": 1}, "a/b": 2}, y={"a/b": 2})
