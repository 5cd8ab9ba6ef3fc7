"""Stochastic rounding: bits and their law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jopt.storage.rounding import random_bits, stochastic_bfloat16


def test_every_bit_is_set_half_of_the_time_and_bits_are_independent():
    bits = np.asarray(random_bits(jnp.zeros((64, 1024)), step=3))
    planes = np.array([(bits.ravel() >> k) & 1 for k in range(32)], float)
    error = 4.5 / np.sqrt(bits.size)  # of a mean of ±1, at 4.5 standard deviations
    assert np.abs(2 * planes.mean(1) - 1).max() < error
    correlations = np.corrcoef(planes) - np.eye(32)
    assert np.abs(correlations).max() < error


@pytest.mark.parametrize("other", [{"step": 4}, {"step": 3, "stream": 1}])
def test_another_step_or_stream_has_unrelated_bits(other):
    x = jnp.zeros((64, 1024))
    a, b = np.asarray(random_bits(x, 3)), np.asarray(random_bits(x, **other))
    same = np.unpackbits((a ^ b).view(np.uint8)).mean()
    assert abs(same - 0.5) < 4.5 / (2 * np.sqrt(a.size * 32))


def test_neighbours_in_every_axis_and_in_time_are_uncorrelated():
    x = jnp.zeros((64, 1024))
    bits = [np.asarray(random_bits(x, step)) for step in (1, 2)]
    u = [b / 2.0**32 - 0.5 for b in bits]
    pairs = [(u[0][1:], u[0][:-1]), (u[0][:, 1:], u[0][:, :-1]), (u[0], u[1])]
    for a, b in pairs:
        assert abs(np.mean(a * b)) * 12 < 4.5 / np.sqrt(a.size)


def test_a_mean_of_many_roundings_is_the_number():
    # The test of torchao: 100,000 roundings of 32 numbers.
    x = np.random.default_rng(0).random(32).astype(np.float32) * 100
    many = jnp.broadcast_to(x, (100_000, 32))
    rounded = stochastic_bfloat16(many, random_bits(many, step=1))
    mean = np.asarray(rounded).astype(np.float64).mean(0)
    spacing = 2.0 ** (np.floor(np.log2(x)) - 7)
    assert np.all(np.abs(mean - x) < 4.5 * spacing / 2 / np.sqrt(100_000))


def test_numbers_of_bfloat16_infinities_and_nan_stay():
    exact = np.array([0, -0.0, 1, -1.0078125, 1e-40, 3.3895e38], jnp.bfloat16)
    x = jnp.concatenate([exact.astype(np.float32), jnp.array([np.inf, -np.inf])])
    for step in range(20):
        rounded = stochastic_bfloat16(x, random_bits(x, step))
        np.testing.assert_array_equal(rounded, x.astype(jnp.bfloat16))
    # Every payload of a NaN, also those of the lower half only.
    nan = jax.lax.bitcast_convert_type(jnp.uint32([0x7F800001, 0xFFFFFFFF]), "float32")
    assert np.isnan(stochastic_bfloat16(nan, random_bits(nan, 1))).all()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [("x", "y"), ("y", None), (None, "x")])
def test_bits_are_those_of_one_device_on_eight(kind, spec):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    x = jnp.zeros((8, 12))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    bits_beside = jax.jit(lambda x: (random_bits(x, 7), x))
    of_many, _ = bits_beside(jax.device_put(x, sharding))
    np.testing.assert_array_equal(of_many, random_bits(x, 7))
    if kind is AxisType.Explicit:
        assert of_many.sharding.is_equivalent_to(sharding, 2)
