"""PyTree arithmetic: norms that are exact for any magnitude, counts, paths."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jopt import tree


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
def test_a_bias_correction_has_all_its_digits(decay: float, t: int) -> None:
    expected = -math.expm1(t * math.log(decay)) if decay else 1.0
    constant = tree.bias_correction(decay, jnp.float32(t))
    np.testing.assert_allclose(constant, expected, rtol=3e-7)
    # A traced decay is itself rounded, by up to 3e-8, before anything is computed.
    traced = tree.bias_correction(jnp.float32(decay), jnp.float32(t))
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
