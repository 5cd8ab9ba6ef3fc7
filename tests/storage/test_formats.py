"""Formats: what codes can say, and that moments survive in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.storage import formats
from jopt.storage.blocks import largest, spread
from jopt.storage.formats import Encoded
from jopt.storage.rounding import random_bits
from jopt.values import arguments


BLOCKS = ["float8_e4m3", "int8", "int4"]
rng = np.random.default_rng(0)
NORMAL = jnp.asarray(rng.standard_normal((32, 1024)), jnp.float32)
UNIFORM = jnp.asarray(rng.random((32, 1024)), jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 2))
def through(form, x, step=None):
    bits = None if step is None else random_bits(x, step)
    stored = form.encode(x, form.start(x, 0.0, jnp.float32), bits)
    return stored, form.decode(stored)


def test_formats_are_those_whose_names_are_accepted():
    for positive in (False, True):
        for name in arguments.FORMATS:
            assert formats.named(name, positive).name == name
    assert formats.named("bfloat16", False) is None


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("positive", [False, True])
def test_every_code_is_a_number_of_its_own_that_comes_back(name, positive):
    form = formats.named(name, positive)
    wide = form.dtype in (jnp.int8, jnp.uint8, jnp.float8_e4m3fn)
    bits = np.arange(256 if wide else 16, dtype=np.uint8)
    if name == "float8_e4m3":
        codes = bits.view(jnp.float8_e4m3fn)
        codes = codes[np.isfinite(codes.astype(np.float32))]
        codes = codes[codes > 0] if positive else codes
    elif positive:
        codes = bits
    else:
        top = int(form.code.largest)
        codes = np.arange(-top, top + 1)
    codes = jnp.asarray(codes).astype(form.dtype)
    size = max(formats.LEAST_SIZE, len(codes))
    row = jnp.broadcast_to(jnp.resize(codes, size), (1, size)).astype(form.dtype)
    scales = jnp.full((1, -(-size // form.size)), 2.5)
    x = form.decode(Encoded(row, scales))
    # Without every code in each block the largest is missing, and scales change.
    per_block = largest(x, form.size)
    complete = spread(per_block, x, form.size) == x.max()
    for step in (None, 1):
        again, y = through(form, x, step)
        same = np.asarray(again.codes).astype(float) == np.asarray(row).astype(float)
        np.testing.assert_array_equal(same[complete], True)
        np.testing.assert_allclose(y[complete], x[complete], rtol=1e-6)
    if positive:
        assert x.min() > 0
    else:
        assert (x == 0).any()


# The tests of bitsandbytes: mean absolute and mean relative error.
@pytest.mark.parametrize(
    "x, bounds", [(NORMAL, (0.011, 0.018)), (UNIFORM, (0.0044, 0.015))]
)
def test_errors_of_int8_are_near_those_of_bitsandbytes(x, bounds):
    _, y = through(formats.named("int8", False), x)
    error = jnp.abs(x - y)
    assert error.mean() < bounds[0]
    assert (error / (jnp.abs(x) + 1e-9)).mean() < bounds[1]


def test_int8_keeps_direction_and_size_as_in_flashoptim():
    for positive, x in [(False, NORMAL), (True, UNIFORM)]:
        _, y = through(formats.named("int8", positive), x)
        cosine = jnp.vdot(x, y) / jnp.linalg.norm(x) / jnp.linalg.norm(y)
        assert cosine > 0.9999
        assert jnp.abs(x - y).mean() < 1.6 * jnp.abs(x).max() / 255


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("positive", [False, True])
def test_the_mean_of_many_roundings_is_the_number(name, positive):
    form = formats.named(name, positive)
    few = np.concatenate(
        [[1.0], np.geomspace(0.3 if name == "int4" else 0.01, 0.9, 31)]
    )
    x = jnp.broadcast_to(jnp.asarray(few, jnp.float32), (5_000, 32))
    _, y = through(form, x, 1)
    y = np.asarray(y, float)
    error = np.abs(y.mean(0) - few)
    assert np.all(error <= 5 * y.std(0) / np.sqrt(len(y)) + 1e-6)
    assert np.all(y.std(0)[1:] > 0)


def test_what_is_small_or_narrow_stays_in_float32():
    form = formats.named("int8", True)
    assert form.shapes((64, 63)) == Encoded((64, 63), None)
    assert form.shapes((1024, 31)) == Encoded((1024, 31), None)
    assert form.shapes((4096,)) == Encoded((4096,), (16,))
    assert form.shapes((2, 64, 100)) == Encoded((2, 64, 100), (2, 64, 1))
    stored = form.start(jnp.ones((64, 63)), 0.1, jnp.float32)
    assert stored.scales is None
    np.testing.assert_array_equal(form.decode(stored), np.float32(0.1))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("positive, fill", [(False, -0.3), (True, 0.3), (True, 0.0)])
def test_a_slot_starts_at_its_fill_without_encoding(name, positive, fill):
    form = formats.named(name, positive)
    start = jax.jit(lambda x: form.start(x, fill, jnp.float32))
    np.testing.assert_allclose(form.decode(start(NORMAL)), fill, rtol=1e-6)
    text = str(jax.make_jaxpr(start)(NORMAL))
    assert "sqrt" not in text and "floor" not in text


def test_a_zero_block_is_zero_and_a_nan_is_not_hidden():
    for name in BLOCKS:
        for positive in (False, True):
            form = formats.named(name, positive)
            block = slice(0, min(form.size, 1024))
            x = UNIFORM.at[3, block].set(0).at[5, 7].set(jnp.nan)
            x = x.at[6, block].set(1e-39)  # no scale could divide it
            _, y = through(form, x, 1)
            assert (y[3, block] == 0).all() and (y[6, block] == 0).all()
            assert jnp.isnan(y[5, 7]) and not jnp.isnan(y.at[5].set(0)).any()


def moments(form_m, form_v, gradient, steps, shape, b2=0.999):
    """Adam's moments, kept in formats and in float32, and the largest updates."""

    def step(i, carry):
        m, v, exact_m, exact_v, most = carry
        g = gradient(i)

        def averaged(m, v):
            return 0.9 * m + 0.1 * g, b2 * v + (1 - b2) * g * g

        new_m, new_v = averaged(form_m.decode(m), form_v.decode(v))
        exact_m, exact_v = averaged(exact_m, exact_v)

        def update(m, v):
            t = i + 1.0
            root = jnp.sqrt(v / (1 - b2**t)) + 1e-8
            return jnp.abs(m / (1 - 0.9**t) / root).max()

        most = jnp.maximum(
            most, jnp.stack([update(new_m, new_v), update(exact_m, exact_v)])
        )
        m = form_m.encode(new_m, m, random_bits(g, i, 1))
        v = form_v.encode(new_v, v, random_bits(g, i, 2))
        return m, v, exact_m, exact_v, most

    zeros = jnp.zeros(shape)
    start = [f.start(zeros, 0.0, jnp.float32) for f in (form_m, form_v)]
    carry = (*start, zeros, zeros, jnp.zeros(2))
    _, v, _, exact_v, most = jax.jit(lambda: jax.lax.fori_loop(0, steps, step, carry))()
    return form_v.decode(v) / exact_v, most


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_no_update_is_twice_too_large_in_a_block_of_unlike_elements(sigma):
    # The zero point: a second moment that is lost where the first is not.
    shape = 4, 1024
    sizes = jnp.asarray(np.exp(sigma * rng.standard_normal(shape)), jnp.float32)

    def gradient(i):
        key = jax.random.fold_in(jax.random.key(1), i)
        return jax.random.normal(key, shape) * sizes

    pair = [formats.named("int8", positive) for positive in (False, True)]
    _, (most, right) = moments(*pair, gradient, 100, shape)
    assert most <= 2 * right


@pytest.mark.parametrize("name, spread", [("bfloat16_sr", 1.06), ("int8", 1.2)])
def test_a_second_moment_follows_gradients_that_become_ten_times_smaller(name, spread):
    # bfloat16, rounded to nearest, stays at 1.12 and then at 4.8 times the average.
    shape = 16, 256

    def gradient(i):
        key = jax.random.fold_in(jax.random.key(1), i)
        g = jax.random.normal(key, shape)
        return g * jnp.where(i < 300, 1.0, 0.1)

    pair = [formats.named(name, positive) for positive in (False, True)]
    ratio, _ = moments(*pair, gradient, 600, shape, b2=0.99)
    assert abs(ratio.mean() - 1) < 0.02
    assert jnp.exp(jnp.std(jnp.log(ratio))) < spread
