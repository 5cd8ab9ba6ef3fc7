"""The numbers of kernels are XLA's, and what has no exact loop in C is refused."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jopt.native.emission import Unsupported, c_source
from tests.native.adam_rule import NUMBERS, adamw, leaf, native


SPECIAL = [0.0, -0.0, 1.0, -1.0, 3.0, 0.1, -2.5, 1e-30, 3e38, -3e38, 1e-40, -1e-40]
SPECIAL += [np.inf, -np.inf, np.nan]
A, B = (
    np.float32(x).ravel()
    for x in np.meshgrid([*SPECIAL, *range(-17, 0)], [*SPECIAL, 7, 8, 9, 10])
)
SCALAR = np.float32(0.3)
EXACT = {
    "add": lambda a, b, s: a + b,
    "sub": lambda a, b, s: a - b,
    "mul": lambda a, b, s: a * b,
    "div": lambda a, b, s: a / b,
    "div of a scalar": lambda a, b, s: s / a,
    "neg": lambda a, b, s: -a,
    "max": lambda a, b, s: lax.max(a, b),
    "min": lambda a, b, s: lax.min(a, b),
    "clamp": lambda a, b, s: lax.clamp(-s, a, s),
    "sign": lambda a, b, s: lax.sign(a),
    "abs": lambda a, b, s: lax.abs(a),
    "sqrt": lambda a, b, s: lax.sqrt(a),
    "square": lambda a, b, s: lax.square(a),
    "integer_pow": lambda a, b, s: lax.integer_pow(a, 5),
    "integer_pow 0": lambda a, b, s: lax.integer_pow(a, 0),
    "integer_pow -2": lambda a, b, s: lax.integer_pow(b, -2),
    "floor": lambda a, b, s: lax.floor(a),
    "ceil": lambda a, b, s: lax.ceil(a),
    "gt": lambda a, b, s: lax.select(a > b, a, b),
    "ge": lambda a, b, s: lax.select(a >= b, a, b),
    "lt": lambda a, b, s: lax.select(a < b, a, b),
    "le": lambda a, b, s: lax.select(a <= b, a, b),
    "eq": lambda a, b, s: lax.select(a == b, a, b),
    "ne": lambda a, b, s: lax.select(a != b, a, b),
    "is_finite": lambda a, b, s: lax.select(lax.is_finite(a), a, b),
    "and, not": lambda a, b, s: lax.select((a > s) & ~(b > s), a, b),
    "or, xor": lambda a, b, s: lax.select((a > s) | ((b > s) ^ (a < b)), a, b),
    "scalar choice": lambda a, b, s: lax.select(s > 0, a, b),
    "scalar choice of 0": lambda a, b, s: lax.select(s < 0, a, jnp.zeros_like(b)),
    "bool as a number": lambda a, b, s: (a > b).astype(np.float32),
    "whole numbers": lambda a, b, s: ((a > b).astype(np.int32) * 3 - 1).astype("f4"),
    "number as bool": lambda a, b, s: lax.select(a.astype(bool), a, b),
    "constant": lambda a, b, s: jnp.full_like(a, -np.inf),
    "the same": lambda a, b, s: a,
    "barrier": lambda a, b, s: lax.optimization_barrier((a * b, b))[0],
    "jit": lambda a, b, s: jax.jit(lambda x: x * s)(a),
    "custom_jvp": lambda a, b, s: jax.nn.relu(a),
    "literals": lambda a, b, s: a * np.float32(0.1) + np.float32(np.nan) * s,
}
# Where XLA has rewritten an expression, or has a function of its own.
NEARLY = {
    "div by a scalar": lambda a, b, s: a / s,
    "rsqrt": lambda a, b, s: lax.rsqrt(a),
    "pow": lambda a, b, s: lax.pow(a, b),
    "cbrt": lambda a, b, s: lax.cbrt(a),
    "atan2": lambda a, b, s: lax.atan2(a, b),
}


@functools.cache
def results():
    """The results of all functions, natively and by XLA, one program each."""
    functions = EXACT | NEARLY

    def all_of(a, b, s):
        return [f(a, b, s) for f in functions.values()]

    with jax.numpy_dtype_promotion("standard"):
        call = native(all_of, A, B, SCALAR, aliases={})
        ours, theirs = (jax.jit(f)(A, B, SCALAR) for f in (call, all_of))
    return dict(zip(functions, zip(ours, theirs, strict=True), strict=True))


@pytest.mark.parametrize("name", EXACT)
def test_an_operation_has_the_numbers_of_xla(name):
    # XLA takes subnormal numbers for 0, and returns the ones or the other.
    ours, theirs = (np.where(abs(x) < 1e-37, x * 0, x) for x in results()[name])
    np.testing.assert_array_equal(ours, theirs)
    zero = ours == 0
    np.testing.assert_array_equal(np.signbit(ours[zero]), np.signbit(theirs[zero]))


@pytest.mark.parametrize("name", NEARLY)
def test_a_function_has_nearly_the_numbers_of_xla(name):
    ours, theirs = (np.where(abs(A) < 1e-37, 0, x) for x in results()[name])
    np.testing.assert_allclose(ours, theirs, rtol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rule_has_nearly_the_numbers_of_xla(dtype):
    with jax.enable_x64(dtype == np.float64):
        arguments = [np.asarray(x, dtype) for x in (*leaf(), *NUMBERS)]
        ours = jax.jit(native(adamw, *arguments))(*arguments)
        theirs = jax.jit(adamw)(*arguments)
        for x, y in zip(ours, theirs, strict=True):
            assert x.dtype == dtype
            eps = np.finfo(dtype).eps
            np.testing.assert_allclose(x, y, rtol=8 * eps, atol=1e-37)


def statements(f, *arguments):
    """The lines of the loop."""
    source = c_source(jax.make_jaxpr(f)(*arguments))
    return source.partition("for (int64_t")[2].splitlines()


def test_a_product_with_one_use_is_added_in_one_instruction():
    def fused(f):
        return len(re.findall("fma_", "".join(statements(f, A, B, SCALAR))))

    assert fused(lambda a, b, s: [a * b + s, s - a * b]) == 2
    assert fused(lambda a, b, s: [a * b + a * s]) == 1
    assert fused(lambda a, b, s: [(a * b + s) * (a * b)]) == 0
    assert fused(lambda a, b, s: [a * b, a * b + s]) == 0
    assert fused(lambda a, b, s: [a * b + s, a * b - s]) == 2
    assert fused(lambda a, b, s: [a + s * (s + 1)]) == 0


def test_scalars_and_unused_numbers_are_not_in_the_loop():
    def f(a, b, s):
        a / b
        return [a * (1 - s) / s]

    loop = statements(f, A, B, SCALAR)
    assert not any("/" in line or "in1" in line for line in loop)
    assert sum(" * " in line for line in loop) == 2


def test_what_is_computed_twice_is_computed_once():
    loop = statements(lambda a, b, s: [a / b + s, a / b], A, B, SCALAR)
    assert sum(" / " in line for line in loop) == 1


KEY = jax.random.key(0)
REFUSED = {
    "reduce_sum": lambda a: [a - a.sum()],
    "exp": lambda a: [lax.exp(a)],
    "transpose": lambda a: [a.reshape(-1, 2).T.reshape(-1)],
    "broadcast": lambda a: [jnp.broadcast_to(a, (2, *a.shape)).sum(0)],
    "random": lambda a: [jax.random.normal(KEY, a.shape)],
    "complex": lambda a: [jnp.real(lax.complex(a, a))],
    "cumsum": lambda a: [jnp.cumsum(a)],
    "float16": lambda a: [a.astype(jnp.float16).astype(jnp.float32)],
    "rounding to integers": lambda a: [a.astype(jnp.int32).astype(jnp.float32)],
    "integer division": lambda a: [lax.div(jnp.int32(3), jnp.int32(2)) * a],
    "array constant": lambda a: [a + np.arange(a.size, dtype=np.float32)],
    "result of another size": lambda a: [a, a[:1]],
    "bool result": lambda a: [a > 0],
    "low precision result": lambda a: [a.astype(jnp.bfloat16)],
    "loop": lambda a: [lax.fori_loop(0, 3, lambda _, x: x + 1, a)],
    "no result": lambda a: [],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_elementwise_or_not_exact_is_refused(name):
    with jax.numpy_dtype_promotion("standard"):
        jaxpr = jax.make_jaxpr(REFUSED[name])(np.ones(6, np.float32))
    with pytest.raises(Unsupported):
        c_source(jaxpr)


@pytest.mark.parametrize("other", [jnp.ones(6, jnp.bfloat16), np.ones((6, 2), "f4")])
def test_only_arguments_that_are_used_must_be_supported(other):
    c_source(jax.make_jaxpr(lambda a, b: [a + 1])(A, other))
    with pytest.raises(Unsupported):
        c_source(jax.make_jaxpr(lambda a, b: [a * 2, b * 2])(np.ones(6, "f4"), other))


def test_the_source_is_that_of_leaves_of_other_shapes():
    sources = {
        c_source(jax.make_jaxpr(adamw)(*leaf(shape), *NUMBERS))
        for shape in [(2,), (3, 4), (5, 1, 7)]
    }
    assert len(sources) == 1
