"""What a 16-bit array lacks of a float32 one: exact where it can be, never a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.storage.compensation import error_of, rounded, with_error


KINDS = ["int8", "int16", "bfloat16", "float32"]


def sweep(exponents, dtype, narrow_dtype="bfloat16", step=1):
    """How many numbers come back worse than without an error, and not the same at all.

    The most for an exponent, and the largest relative difference.

    All of them: ``sweep(range(1, 255), "int8")``, in a minute.
    """

    @jax.jit
    def one(exponent):
        mantissas = jnp.arange(0, 2**23, step, dtype=jnp.int32)
        wide = jax.lax.bitcast_convert_type(mantissas | (exponent << 23), jnp.float32)
        narrow = rounded(wide, narrow_dtype)
        code = error_of(wide, narrow.astype(narrow_dtype), dtype)
        off = jnp.abs(with_error(narrow.astype(narrow_dtype), code) - wide)
        finite = jnp.isfinite(narrow)
        worse = finite & (off > jnp.abs(narrow - wide))
        return (
            worse.sum(),
            (finite & (off > 0)).sum(),
            jnp.max(off / wide, where=finite, initial=0),
        )

    rows = [map(float, one(jnp.int32(e))) for e in exponents]
    worse, other, largest = zip(*rows, strict=True)
    return max(worse), max(other), max(largest)


# A prime: mantissas with all kinds of ends.
SOME = {"exponents": [1, 2, 64, 127, 128, 253, 254], "step": 61}


@pytest.mark.parametrize("dtype", KINDS)
def test_an_error_never_makes_a_number_worse(dtype):
    assert sweep(dtype=dtype, **SOME)[0] == 0
    assert sweep([103, 112, 113, 127, 142], dtype, "float16", step=61)[0] == 0


def test_eight_bits_give_sixteen_and_sixteen_nearly_all():
    # XLA:CPU makes zeros of subnormal numbers, which errors of 2e-33 are.
    ordinary = {"exponents": [40, 127, 254], "step": 61}
    assert sweep(dtype="float32", **ordinary)[1:] == (0, 0)
    assert sweep(dtype="int8", **ordinary)[2] < 2**-15.9
    assert sweep(dtype="bfloat16", **ordinary)[2] < 2**-16.9
    # The middle between two numbers above the even one, of which an exponent has 64.
    assert sweep([127], "int16")[1:] == (64, pytest.approx(2**-23, rel=0.01))
    # The numbers below a power of two are closer, and a parameter of 1 goes there.
    below = jnp.float32(1) - jnp.arange(1, 2**15, dtype=jnp.float32) * 2.0**-24
    code = error_of(below, jnp.ones_like(below, jnp.bfloat16), "int16")
    np.testing.assert_array_equal(with_error(jnp.bfloat16(1), code), below)
    code = error_of(-below, -jnp.ones_like(below, jnp.bfloat16), "int16")
    np.testing.assert_array_equal(with_error(-jnp.bfloat16(1), code), -below)


@pytest.mark.parametrize("dtype", KINDS)
def test_of_zero_and_infinity_no_error_makes_something_else(dtype):
    x = jnp.array([0.0, -0.0, 1e-40, jnp.inf, -jnp.inf], jnp.float32)
    narrow = x.astype(jnp.bfloat16)
    code = error_of(x, narrow, dtype)
    if jnp.issubdtype(dtype, jnp.integer):
        np.testing.assert_array_equal(with_error(narrow, code)[3:], x[3:])
    np.testing.assert_array_equal(with_error(narrow, code)[:2], x[:2])
    assert np.isnan(with_error(jnp.bfloat16(jnp.nan), code)).all()


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_an_error_beyond_half_a_distance_is_the_largest_one(dtype):
    code = error_of(jnp.float32([2.0, -2.0]), jnp.ones(2, jnp.bfloat16), dtype)
    info = jnp.iinfo(dtype)
    assert code[0] == info.max
    assert code[1] <= -info.max
