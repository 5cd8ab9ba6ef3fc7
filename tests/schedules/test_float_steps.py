"""Steps that are floats: an epoch and its fraction, or a count that was divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.schedules.test_schedules import EXACT, build


STEPS = np.arange(40)
# One schedule of each factory, and those whose steps an int32 cannot count.
TEXTS = {text.partition("(")[0]: text for text in EXACT}.values()
TEXTS = [*TEXTS, *(text for text in EXACT if "10**12" in text)]


@pytest.mark.parametrize("text", TEXTS)
def test_a_whole_step_as_a_float_is_that_step(text: str) -> None:
    schedule = build(text)
    found, expected = schedule(jnp.asarray(STEPS, float)), schedule(jnp.asarray(STEPS))
    assert found.dtype == expected.dtype
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * scale)


BETWEEN = {
    "linear_schedule(0.0, 1.0, 4, 1)": (2.5, 0.375),
    "polynomial_schedule(1.0, 0.0, 2.0, 4)": (0.5, 0.765625),
    "exponential_decay(1.0, 2, 0.25)": (1.5, 0.35355338),
    "exponential_decay(1.0, 2, 0.25, staircase=True)": (2.5, 0.25),
    "cosine_decay_schedule(1.0, 4)": (0.5, (1 + np.cos(np.pi / 8)) / 2),
    "inverse_time_decay(1.0, 2, 1.0)": (1.5, 1 / 1.75),
    "piecewise_constant_schedule(1.0, {2: 0.5})": (1.5, 1.0),
    "piecewise_interpolate_schedule('linear', 1.0, {2: 3.0, 4: 0.0})": (2.5, 2.25),
    "warmup_cosine(1.0, warmup_steps=2, total_steps=6)": (0.5, 0.25),
    # The peak is between two steps too, at 2.5.
    "onecycle_schedule(1.0, total_steps=10, pct_start=0.35)": (
        2.75,
        (1 + np.cos(np.pi / 26)) / 2,
    ),
    "cosine_decay_restarts(1.0, 2)": (4.0, 0.5),
    "cyclic_schedule(0.0, 1.0, 2)": (2.5, 0.75),
    "join_schedules([constant_schedule(1.0), linear_schedule(1.0, 0.0, 4)], [2])": (
        2.5,
        0.875,
    ),
}


@pytest.mark.parametrize("text", BETWEEN)
def test_a_step_between_two_is_on_the_curve(text: str) -> None:
    step, expected = BETWEEN[text]
    schedule = build(text)
    for count in (step, jnp.bfloat16(step)):
        np.testing.assert_allclose(schedule(count), expected, rtol=2e-6)


def test_a_negative_float_is_before_the_first_step() -> None:
    assert jopt.linear_schedule(0.5, 1.0, 4)(-3.5) == 0.5


def test_a_float_step_may_be_traced() -> None:
    schedule = jopt.join_schedules([jopt.linear_schedule(0.0, 1.0, 4)] * 2, [4])
    found = jax.jit(schedule)(jnp.array([2.5, 4.5]))
    np.testing.assert_allclose(found, [0.625, 0.125])


def test_the_slope_of_a_schedule_is_its_derivative() -> None:
    slope = jax.grad(jopt.linear_schedule(0.0, 1.0, 4))(2.5)
    np.testing.assert_allclose(slope, 0.25, rtol=1e-6)
