"""Schedules: the libraries' numbers, exact however long the run, and values in use."""

import contextlib
import doctest
import functools
import importlib
import importlib.util
import inspect
import json
import math
import pickle
import pkgutil
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt import schedules
from tests.parity.schedules import (
    GOLDEN,
    LIBRARIES,
    ROWS,
    RTOL,
    by_row,
    oracle,
    rows_of,
)
from tests.public import public


WIDTHS = tuple(RTOL)
LAST = 2**31 - 1  # the last step of an int32 counter
ODD = 2**24 + 1  # the first whole number that float32 does not have
COUNTS = (
    0,
    1,
    2,
    999,
    ODD - 2,
    ODD - 1,
    ODD,
    ODD + 1,
    2 * ODD - 1,
    2 * ODD,
    2 * ODD + 1,
)
COUNTS += (2**30 + 1, LAST - 2, LAST - 1, LAST)


def build(text):
    """The schedule that a table's text stands for."""
    keys = jax.random.split(jax.random.key(0))
    return eval(text, public(jopt) | {"ODD": ODD, "LAST": LAST, "KEYS": keys})


def in_width(width):
    """JAX with this width of floats."""
    return jax.enable_x64(True) if width == "float64" else contextlib.nullcontext()


# The numbers of the real libraries.


@functools.cache
def golden(library):
    """The golden values of each of a library's rows."""
    with np.load(GOLDEN) as file:
        recipes = [row.recipe for row in rows_of(library)]
        again = "run python -m tests.parity.schedules"
        assert file[f"{library}.rows"].tolist() == recipes, again
        return by_row(library, file[library])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.library}-{row.jopt}")
def test_every_value_equals_the_library(row, width):
    expected = golden(row.library)[row]
    with in_width(width):
        actual = np.asarray(build(row.jopt)(jnp.arange(row.steps)))
    assert actual.dtype == width
    np.testing.assert_allclose(
        actual, expected, RTOL[width], row.atol, err_msg=row.oracle
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_golden_values_are_what_the_installed_library_gives(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    for row, values in by_row(library, oracle(library)).items():
        np.testing.assert_allclose(
            values, golden(library)[row], 1e-12, row.atol, err_msg=row.oracle
        )


SCHEDULERS = {
    "keras": "ExponentialDecay PiecewiseConstantDecay PolynomialDecay InverseTimeDecay"
    " CosineDecay CosineDecayRestarts",
    "torch": "LambdaLR MultiplicativeLR StepLR MultiStepLR ConstantLR LinearLR"
    " ExponentialLR PolynomialLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR"
    " OneCycleLR SequentialLR ChainedScheduler SWALR",
    "optax": "constant_schedule linear_schedule polynomial_schedule exponential_decay"
    " piecewise_constant_schedule piecewise_interpolate_schedule cosine_decay_schedule"
    " cosine_onecycle_schedule linear_onecycle_schedule warmup_constant_schedule"
    " warmup_cosine_decay_schedule warmup_exponential_decay_schedule sgdr_schedule"
    " join_schedules",
}


@pytest.mark.parametrize("library", SCHEDULERS)
def test_every_scheduler_of_the_library_has_a_row(library):
    called = {row.oracle.partition("(")[0] for row in rows_of(library)}
    assert called == set(SCHEDULERS[library].split())


@pytest.mark.parametrize("name", SCHEDULERS["optax"].split())
def test_the_arguments_of_optax_are_here_in_their_order(name):
    wanted = inspect.signature(getattr(optax, name)).parameters.values()
    ours = inspect.signature(getattr(jopt, name)).parameters.values()
    found = [(p.name, p.default) for p in ours if p.kind is not p.KEYWORD_ONLY]
    assert found == [(p.name, p.default) for p in wanted]


# Exact numbers: every schedule again, in fractions, of steps that float32 cannot hold.


def way(t, start, end):
    """The share of the way from start to end that is gone at step t."""
    gone = Fraction(t - start) / (Fraction(end) - start)
    return min(max(gone, Fraction(0)), Fraction(1))


def between(a, b, gone):
    """A value between two, exactly."""
    return Fraction(a) * (1 - gone) + Fraction(b) * gone


def half_cosine(gone):
    """(1 + cos(pi gone)) / 2."""
    return Fraction(math.sin(math.pi / 2 * float(1 - gone))) ** 2


def curve(a, b, left):
    """A value between two, for a share left that is rounded."""
    return float(Fraction(a) * Fraction(left) + Fraction(b) * (1 - Fraction(left)))


def cycled(t, steps):
    """The share left of the stretched way of a polynomial with cycle."""
    return 1 - Fraction(t, steps * max(1, math.ceil(Fraction(t, steps))))


def restarts(t, first, growth):
    """How many decays are over at step t, and the share that is gone of the next."""
    i, start, length = 0, Fraction(0), Fraction(first)
    if growth == 1:
        return t // first, Fraction(t % first, first)
    while t >= start + length:
        i, start, length = i + 1, start + length, length * Fraction(growth)
    return i, (t - start) / length


def restarted(t, first, growth, height, alpha):
    """A cosine from 1 to alpha, again and again."""
    over, gone = restarts(t, first, growth)
    return alpha + (1 - alpha) * height**over * float(half_cosine(gone))


def one_cycle(t, total, peak_at):
    """torch's 1cycle from 1/25 over 1 to 1/250000."""
    if t <= peak_at:
        return curve(0.04, 1.0, half_cosine(way(t, 0, peak_at)))
    return curve(1.0, 4e-6, half_cosine(way(t, peak_at, total - 1)))


def rex(gone):
    """(1 - gone) / (1 - gone / 2)."""
    return (1 - gone) / (1 - gone / 2)


def swing(t, up, down, shape=Fraction):
    """The way up of a cycle at step t, down again after its top."""
    into = t % (up + down)
    return shape(Fraction(into, up) if into <= up else Fraction(up + down - into, down))


def waves(t, steps, periods, alpha, beta, noise=0.0):
    """A line times a cosine."""
    x = min(Fraction(t, steps), Fraction(1))
    # The angle is reduced before it is rounded.
    half, cycle = Fraction(1, 2), periods * x % 1
    wave = math.cos(math.pi * float(cycle)) ** 2
    if abs(cycle - half) < Fraction(1, 4):
        wave = math.sin(math.pi * float(half - cycle)) ** 2
    return (alpha + float(1 - x) + noise) * wave + beta


def noise(t, steps, variance, decay, seed):
    """What the noisy schedule adds to its line."""
    key = jax.random.fold_in(jax.random.key(seed), t)
    drawn = float(jax.random.normal(key, (), jnp.float32))
    return math.sqrt(variance / (1 + min(t, steps)) ** decay) * drawn


def warm_restart(t, lengths, peaks, warmup):
    """Cosines to 0 with warmups from 0."""
    i = 0
    while i < len(lengths) - 1 and t >= lengths[i]:
        t, i = t - lengths[i], i + 1
    if t < warmup:
        return peaks[i] * way(t, 0, warmup)
    return peaks[i] * half_cosine(way(t, warmup, lengths[i]))


EXACT = {
    "constant_schedule(0.1)": lambda t: 0.1,
    "micro_step_schedule(inverse_time_decay(0.05, 2, 0.5), 7)": lambda t: (
        0.05 / (1 + 0.5 * (7 * min(t, (2**31 - 7) // 7) + 6) / 2)
    ),
    "epoch_schedule(linear_schedule(1.0, 0.0, 1000), ODD)": lambda t: (
        1 - way(t // ODD, 0, 1000)
    ),
    "rex_schedule(1.0, 0.0, LAST)": lambda t: rex(way(t, 0, LAST)),
    "rex_schedule(0.25, 1.0, ODD, ODD)": lambda t: between(
        1, 0.25, rex(way(t, ODD, 2 * ODD))
    ),
    "power_schedule(1.0, ODD, 0.51, ODD)": lambda t: max(t / ODD, 1) ** -0.51,
    "power_schedule(1.0, 3, 2.0)": lambda t: (1 + Fraction(t, 3)) ** -2,
    # Keras 1's decay and TensorFlow's natural_exp_decay.
    "inverse_time_decay(0.1, 1, 1e-6)": lambda t: 0.1 / (1 + 1e-6 * t),
    "exponential_decay(0.1, ODD, 0.6065306597126334)": lambda t: (
        0.1 * math.exp(-0.5 * t / ODD)
    ),
    # A power of what is left, late: the cooldown of a plateau.
    "polynomial_schedule(1.0, 0.0, 1.2, 4 * 10**9, ODD)": lambda t: (
        (1 - way(t, ODD, 4 * 10**9 + ODD)) ** 1.2
    ),
    "linear_cosine_decay(0.5, LAST)": lambda t: 0.5 * waves(t, LAST, 0.5, 0, 0.001),
    "linear_cosine_decay(1.0, 2 * ODD, 1.5, 0.1, 0.0)": lambda t: waves(
        t, 2 * ODD, Fraction(3, 2), 0.1, 0.0
    ),
    "linear_cosine_decay(1.0, LAST, 2.25)": lambda t: waves(
        t, LAST, Fraction(9, 4), 0, 0.001
    ),
    "noisy_linear_cosine_decay(1.0, LAST, 0.01, key=3)": lambda t: waves(
        t, LAST, 0.5, 0, 0.001, noise(t, LAST, 0.01, 0.55, 3)
    ),
    "noisy_linear_cosine_decay(1.0, ODD, 0.04, 0.1, 1.0, 0.5, 0.1, key=0)": (
        lambda t: waves(t, ODD, 1, 0.5, 0.1, noise(t, ODD, 0.04, 0.1, 0))
    ),
    "cyclic_schedule(0.1, 1.0, 3, 4)": lambda t: between(0.1, 1, swing(t, 3, 4)),
    "cyclic_schedule(0.0, 1.0, ODD)": lambda t: swing(t, ODD, ODD),
    "cyclic_schedule(1.0, 0.0, ODD, LAST - ODD)": lambda t: (
        1 - swing(t, ODD, LAST - ODD)
    ),
    "cyclic_schedule(1.0, 0.0, LAST, shape='cosine')": lambda t: half_cosine(
        swing(t, LAST, LAST)
    ),
    "cyclic_schedule(0.0, 1.0, 10**12)": lambda t: Fraction(t, 10**12),
    "cyclic_schedule(0.0, 1.0, ODD, 1, mode='triangular2')": lambda t: (
        swing(t, ODD, 1) * Fraction(1, 2 ** (t // (ODD + 1)))
    ),
    "cyclic_schedule(1.0, 0.0, 2, mode='exp_range', gamma=0.9999999)": lambda t: (
        1 - swing(t, 2, 2) - float(swing(t, 2, 2)) * math.expm1(t * math.log(0.9999999))
    ),
    "multiply_schedules([0.5, linear_schedule(0.0, 1.0, LAST),"
    " inverse_time_decay(4.0, 1, 1.0)])": lambda t: 2 * way(t, 0, LAST) / (1 + t),
    "multiplicative_schedule(3.0, exponential_decay(1.0, 100, 0.9), 1000)": lambda t: (
        3 * 0.9 ** (min(t, 1000) * (min(t, 1000) + 1) / 200)
    ),
    "sgdr_schedule([dict(init_value=0.0, peak_value=p, warmup_steps=7, decay_steps=d)"
    " for p, d in [(1.0, 999), (0.5, ODD - 999), (0.25, LAST - ODD)]])": lambda t: (
        warm_restart(t, [999, ODD - 999, LAST - ODD], [1, 0.5, 0.25], 7)
    ),
    "linear_schedule(0.0, 1.0, LAST)": lambda t: way(t, 0, LAST),
    "linear_schedule(1.0, 0.0, LAST)": lambda t: 1 - way(t, 0, LAST),
    "linear_schedule(0.1, 0.9, ODD, ODD)": lambda t: between(
        0.1, 0.9, way(t, ODD, 2 * ODD)
    ),
    "linear_schedule(1.0, 0.0, 10**12)": lambda t: 1 - way(t, 0, 10**12),
    "linear_schedule(1.0, 0.5, 10, 10**12)": lambda t: 1.0,
    "polynomial_schedule(1.0, 0.0, 2.0, LAST)": lambda t: (1 - way(t, 0, LAST)) ** 2,
    "polynomial_schedule(0.0, 1.0, 3.0, LAST)": lambda t: (
        1 - (1 - way(t, 0, LAST)) ** 3
    ),
    "polynomial_schedule(1.0, 0.0, 1.0, ODD, cycle=True)": lambda t: cycled(t, ODD),
    "polynomial_schedule(1.0, 0.0, 1.0, 7, cycle=True)": lambda t: cycled(t, 7),
    "exponential_decay(1.0, ODD, 0.1)": lambda t: 0.1 ** (t / ODD),
    "exponential_decay(1.0, ODD, 0.96, staircase=True)": lambda t: 0.96 ** (t // ODD),
    "exponential_decay(1.0, 10**6, 0.99)": lambda t: 0.99 ** (t / 10**6),
    "exponential_decay(1.0, 10**12, 0.5, staircase=True)": lambda t: 1.0,
    "inverse_time_decay(1.0, 1, 1.0)": lambda t: Fraction(1, 1 + t),
    "inverse_time_decay(1.0, ODD, 0.5, True)": lambda t: 1 / (1 + t // ODD / 2),
    "inverse_sqrt_schedule(1.0, ODD)": lambda t: (1 + t / ODD) ** -0.5,
    "piecewise_constant_schedule(1.0, {ODD: 0.5, LAST: 0.5})": lambda t: (
        0.5 ** ((t >= ODD) + (t >= LAST))
    ),
    "piecewise_constant([ODD, LAST - 1, 10**12], [1, 0, 2, 3], switch='after')": (
        lambda t: 1 if t <= ODD else 0 if t < LAST else 2
    ),
    "cosine_decay_schedule(1.0, LAST)": lambda t: half_cosine(way(t, 0, LAST)),
    "cosine_decay_schedule(1.0, LAST, 0.1, 2.0)": lambda t: curve(
        1.0, 0.1, half_cosine(way(t, 0, LAST)) ** 2
    ),
    "cosine_decay_restarts(1.0, ODD, 1.0, 0.99)": lambda t: restarted(
        t, ODD, 1, 0.99, 0
    ),
    "cosine_decay_restarts(1.0, 7, 1.0)": lambda t: restarted(t, 7, 1, 1, 0),
    "cosine_decay_restarts(1.0, ODD, m_mul=0.5, alpha=0.1)": lambda t: restarted(
        t, ODD, 2, 0.5, 0.1
    ),
    "cosine_decay_restarts(1.0, 1000, 1.1)": lambda t: restarted(t, 1000, "1.1", 1, 0),
    "cosine_decay_restarts(1.0, ODD, 1.5)": lambda t: restarted(t, ODD, "1.5", 1, 0),
    "piecewise_interpolate_schedule('linear', 1.0, {ODD: 2.0, LAST: 0.0})": lambda t: (
        between(1, 2, way(t, 0, ODD)) if t < ODD else between(2, 0, way(t, ODD, LAST))
    ),
    "linear_onecycle_schedule(LAST, 1.0, 0.25, 0.5, 8.0, 64.0)": lambda t: (
        between(0.125, 1, way(t, 0, LAST // 4))
        if t < LAST // 4
        else between(1, 0.125, way(t, LAST // 4, LAST // 2))
        if t < LAST // 2
        else between(0.125, 0.125 / 64, way(t, LAST // 2, LAST))
    ),
    "cosine_onecycle_schedule(LAST, 1.0, 0.25, 8.0, 64.0)": lambda t: (
        curve(0.125, 1, half_cosine(way(t, 0, LAST // 4)))
        if t < LAST // 4
        else curve(1, 0.125 / 64, half_cosine(way(t, LAST // 4, LAST)))
    ),
    "onecycle_schedule(1.0, total_steps=LAST + 1)": lambda t: one_cycle(
        t, LAST + 1, 0.3 * (LAST + 1) - 1
    ),
    "onecycle_schedule(1.0, total_steps=2 * ODD + 1, pct_start=0.5)": lambda t: (
        one_cycle(t, 2 * ODD + 1, ODD - 0.5)
    ),
    "warmup_constant_schedule(0.0, 1.0, ODD)": lambda t: way(t, 0, ODD),
    "warmup_cosine_decay_schedule(0.0, 1.0, ODD, LAST, 0.1)": lambda t: (
        way(t, 0, ODD) if t < ODD else curve(1.0, 0.1, half_cosine(way(t, ODD, LAST)))
    ),
    "warmup_exponential_decay_schedule(0.0, 1.0, ODD, ODD, 0.5, 9, True)": lambda t: (
        way(t, 0, ODD) if t < ODD else 0.5 ** (max(t - ODD - 9, 0) // ODD)
    ),
    "warmup_cosine(1.0, warmup_steps=ODD, total_steps=LAST)": lambda t: (
        way(t, 0, ODD) if t < ODD else half_cosine(way(t, ODD, LAST))
    ),
    "warmup_linear(1.0, warmup_steps=ODD, total_steps=LAST)": lambda t: (
        way(t, 0, ODD) if t < ODD else 1 - way(t, ODD, LAST)
    ),
    "warmup_linear(1.0, warmup_steps=ODD, total_steps=10**12)": lambda t: (
        way(t, 0, ODD) if t < ODD else 1 - way(t, ODD, 10**12)
    ),
    "warmup_stable_decay(1.0, warmup_steps=ODD, decay_steps=ODD, total_steps=LAST)": (
        lambda t: way(t, 0, ODD) if t < ODD else 1 - way(t, LAST - ODD, LAST)
    ),
    "warmup_stable_decay(1.0, warmup_steps=0, decay_steps=LAST, total_steps=LAST,"
    " decay_shape='1-sqrt')": lambda t: (
        float(1 - way(t, 0, LAST)) / (1 + math.sqrt(way(t, 0, LAST)))
    ),
    "warmup_stable_decay(1.0, warmup_steps=0, decay_steps=LAST, total_steps=LAST,"
    " decay_shape='1-square')": lambda t: 1 - way(t, 0, LAST) ** 2,
    "warmup_stable_decay(1.0, warmup_steps=0, decay_steps=2, total_steps=LAST,"
    " decay_shape='cosine')": lambda t: half_cosine(way(t, LAST - 2, LAST)),
    "warmup_inverse_sqrt(1.0, warmup_steps=ODD)": lambda t: (
        way(t, 0, ODD) if t < ODD else (ODD / t) ** 0.5
    ),
    "warmup_inverse_sqrt(1.0, warmup_steps=0, timescale=3)": lambda t: (
        (1 + t / 3) ** -0.5
    ),
    "join_schedules([linear_schedule(1.0, 0.0, LAST), linear_schedule(5.0, 0.0, 5)],"
    " [ODD])": lambda t: (
        1 - way(t, 0, LAST) if t < ODD else 5 - 5 * way(t, ODD, ODD + 5)
    ),
    "swa_schedule(linear_schedule(1.0, 0.0, LAST), ODD, 0.5, 2)": lambda t: between(
        0.5, 1 - way(min(t, ODD), 0, LAST), half_cosine(way(t, ODD, ODD + 2))
    ),
    "swa_schedule(constant_schedule(1.0), 5, 0.25, ODD, 'linear')": lambda t: between(
        1, 0.25, way(t, 5, ODD + 5)
    ),
    # TensorFlow's, and the one of timm and diffusers.
    "ema_warmup_schedule(0.9999999)": lambda t: min(
        Fraction(0.9999999), Fraction(1 + t, 10 + t)
    ),
    "ema_warmup_schedule(0.9999, 0.0, 1, 2 / 3)": lambda t: min(
        0.9999, -math.expm1(-2 / 3 * math.log1p(t))
    ),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", EXACT)
def test_every_value_is_exact_at_steps_that_float32_does_not_have(text, width):
    expected = [float(EXACT[text](t)) for t in COUNTS]
    with in_width(width):
        actual = np.asarray(jax.jit(build(text))(jnp.array(COUNTS)))
    # Noise is drawn in float32, where compilation may change the last bit.
    atol = 1e-7 if text.startswith("noisy") else 1e-35
    np.testing.assert_allclose(actual, expected, RTOL[width], atol)


@pytest.mark.parametrize("first", [2100, 3310, 4641])
def test_a_restart_is_at_the_step_that_the_decimal_number_means(first):
    schedule = jopt.cosine_decay_restarts(0.1, 1000, t_mul=1.1)
    assert schedule(first) == np.float32(0.1)
    assert schedule(first - 1) < 1e-6


def test_steps_above_int32_count_where_the_integers_are_wide_enough():
    unsigned = jopt.linear_schedule(1.0, 0.0, 2**32 - 1)(jnp.uint32(2**32 - 3))
    np.testing.assert_allclose(unsigned, 2 / (2**32 - 1), 5e-7)
    with jax.enable_x64(True):
        tokens = 10**15 - np.arange(3)
        values = jopt.warmup_linear(1.0, warmup_steps=10**12, total_steps=10**15)(
            tokens
        )
        np.testing.assert_allclose(values, np.arange(3) / 999e12, 1e-14)
        after = jopt.cosine_decay_restarts(1.0, 10**12, m_mul=0.5)(3 * 10**12)
        assert after == 0.25


# Joints and ends.


ENDS = (
    ("linear_schedule(0.3, 0.1, 13, 7)", 20, 0.1),
    ("polynomial_schedule(0.3, 0.1, 0.7, 13)", 13, 0.1),
    ("rex_schedule(0.3, 0.1, 13, 7)", 20, 0.1),
    ("exponential_decay(0.3, 13, 0.5, end_value=0.1)", 40, 0.1),
    ("linear_cosine_decay(0.3, 13, beta=0.0)", 13, 0.0),
    ("linear_cosine_decay(1.0, 13, 2.5, beta=0.1)", 13, 0.1),
    ("noisy_linear_cosine_decay(1.0, 13, beta=0.1, key=0)", 13, 0.1),
    ("cosine_decay_schedule(0.3, 13)", 13, 0.0),
    ("cosine_decay_schedule(0.2, 13, 0.5, 2.0)", 13, 0.1),
    ("warmup_constant_schedule(0.3, 0.1, 7)", 7, 0.1),
    ("warmup_cosine_decay_schedule(0.0, 0.3, 7, 13, 0.1)", 13, 0.1),
    ("warmup_cosine(0.3, warmup_steps=7, total_steps=13, end_value=0.1)", 13, 0.1),
    ("warmup_linear(0.3, warmup_steps=7, total_steps=13, end_value=0.1)", 13, 0.1),
    ("onecycle_schedule(0.3, total_steps=13, final_div_factor=4.0)", 12, 0.3 / 25 / 4),
    ("cosine_onecycle_schedule(13, 0.3, 0.3, 5.0, 1.0)", 13, 0.06),
    *(
        (
            "warmup_stable_decay(0.3, warmup_steps=7, decay_steps=3, total_steps=13,"
            f" end_value=0.1, decay_shape={shape!r})",
            13,
            0.1,
        )
        for shape in ("linear", "cosine", "1-sqrt", "1-square")
    ),
)


@pytest.mark.parametrize("text, step, value", ENDS)
def test_the_end_value_is_reached_to_the_last_bit_and_kept(text, step, value):
    schedule = build(text)
    values = schedule(jnp.array([step - 1, step, step + 1, LAST]))
    assert values[1:].tolist() == [np.float32(value)] * 3
    assert values[0] != values[1] or "exponential" in text


PEAKS = (
    ("warmup_constant_schedule(0.0, 0.3, 7)", 7),
    ("warmup_cosine_decay_schedule(0.0, 0.3, 7, 13, 0.1)", 7),
    ("warmup_cosine_decay_schedule(0.1, 0.3, 0, 13, 0.1, 2.0)", 0),
    ("warmup_exponential_decay_schedule(0.1, 0.3, 7, 5, 0.5)", 7),
    ("warmup_cosine(0.3, warmup_steps=7, total_steps=13, init_value=0.1)", 7),
    ("warmup_linear(0.3, warmup_steps=7, total_steps=13)", 7),
    ("warmup_linear(0.3, warmup_steps=0, total_steps=13)", 0),
    ("warmup_stable_decay(0.3, warmup_steps=7, decay_steps=2, total_steps=9)", 7),
    ("warmup_inverse_sqrt(0.3, warmup_steps=7)", 7),
    ("linear_onecycle_schedule(10, 0.3)", 3),
    ("cosine_onecycle_schedule(10, 0.3)", 3),
    ("onecycle_schedule(0.3, total_steps=10)", 2),
    ("cyclic_schedule(0.1, 0.3, 5, 9)", 5),
    ("cyclic_schedule(0.1, 0.3, 5, 9, mode='triangular2')", 5),
)


@pytest.mark.parametrize("text, step", PEAKS)
def test_the_peak_is_reached_to_the_last_bit_at_its_step_only(text, step):
    schedule = build(text)
    values = np.asarray(schedule(jnp.arange(13)))
    assert values[step] == values.max() == np.float32(0.3)
    assert (values[:step] < values[step]).all()
    assert values[12] < values[step] or "constant" in text


def test_a_plateau_lasts_from_the_warmup_to_the_decay():
    schedule = jopt.warmup_stable_decay(
        0.3, warmup_steps=3, decay_steps=4, total_steps=20
    )
    at_peak = schedule(jnp.arange(22)) == np.float32(0.3)
    assert np.flatnonzero(at_peak).tolist() == list(range(3, 17))


def test_pieces_switch_at_or_after_their_boundary():
    counts = jnp.array([0, 4, 5, 6, 17, 18])
    for switch, expected in {
        "at": [3, 3, 0, 0, 2, 2],
        "after": [3, 3, 3, 0, 0, 2],
    }.items():
        values = jopt.piecewise_constant([5, 17], [3, 0, 2], switch=switch)(counts)
        assert values.tolist() == expected


def test_joined_functions_count_from_their_own_boundary_in_signed_integers():
    seen = []

    def after(count):
        seen.append(count.dtype)
        return count - 3

    joined = jopt.join_schedules([lambda count: 7, after], [5])
    assert joined(jnp.arange(4, 10)).tolist() == [7, -3, -2, -1, 0, 1]
    assert seen == [jnp.int32]
    assert jopt.join_schedules([after], [])(jnp.int8(100)) == 97


# Products, noise, cycles.


def test_a_product_takes_any_function_of_the_step():
    schedule = jopt.multiply_schedules([2, lambda count: count + 1, jnp.float32(0.5)])
    assert schedule(jnp.arange(3)).tolist() == [1, 2, 3]
    assert schedule(4).dtype == jnp.float32
    assert jopt.multiply_schedules([3])(jnp.arange(2)).tolist() == [3, 3]


def test_a_factor_per_step_is_multiplied_in_double_precision_wherever_it_is_made():
    def factor(step):
        return jnp.where(step % 2 == 0, 0.9, 1.01)

    expected = np.cumprod([0.9 if t % 2 == 0 else 1.01 for t in range(1, 1000)])
    schedule = jopt.multiplicative_schedule(1.0, factor, 999)
    values = np.asarray(schedule(jnp.arange(1, 1000)))
    np.testing.assert_allclose(values, expected, 1e-7, 0)
    assert values.dtype == np.float32

    def made_while_tracing(count):
        return jopt.multiplicative_schedule(1.0, factor, 999)(count)

    steps = jnp.arange(1, 1000)
    assert jax.jit(made_while_tracing)(steps).tolist() == values.tolist()
    assert jax.vmap(made_while_tracing)(steps).tolist() == values.tolist()
    constant = jopt.multiplicative_schedule(1.0, lambda step: 0.5, 3)
    assert constant(jnp.arange(5)).tolist() == [1, 0.5, 0.25, 0.125, 0.125]


def test_noise_follows_from_the_key_and_the_step_and_has_the_stated_variance():
    def of(key, **options):
        options = {"alpha": 1.0, "num_periods": 1e-9, **options}
        return jopt.noisy_linear_cosine_decay(1.0, 4000, beta=0.0, key=key, **options)

    steps = jnp.arange(4000)
    line = 1 + np.arange(4000, 0, -1) / 4000
    noise = np.asarray(of(0)(steps)) - line
    for begin in (0, 1000):
        keys = jax.random.split(jax.random.key(7), 2000)
        many = np.asarray(jax.vmap(lambda key, t=begin: of(key)(t))(keys))
        variance = (1 + begin) ** -0.55
        assert abs(many.mean() - line[begin]) < 4 * math.sqrt(variance / 2000)
        assert abs(many.var() / variance - 1) < 4 * math.sqrt(2 / 2000)
    # White: neighbours know nothing of each other.
    white = noise * (1 + np.arange(4000)) ** 0.275
    assert abs(np.mean(white[1:] * white[:-1])) < 4 / math.sqrt(4000)
    assert of(0)(7) == of(0)(steps)[7] == of(jax.random.key(0))(7)
    assert of(0)(7) != of(1)(7)
    old = jax.random.key_data(jax.random.key(0))
    assert of(old)(7) == of(0)(7)
    silent = of(0, initial_variance=0.0)(steps)
    np.testing.assert_allclose(silent, line, 5e-7)


def test_a_cycle_begins_where_the_one_before_ended():
    schedule = jopt.cyclic_schedule(0.1, 0.3, 5, 9)
    ends, tops = jnp.array([0, 14, 14 * 10**8]), jnp.array([5, 19, 14 * 10**8 + 5])
    assert schedule(ends).tolist() == [np.float32(0.1)] * 3
    assert schedule(tops).tolist() == [np.float32(0.3)] * 3
    halved = jopt.cyclic_schedule(1.0, 3.0, 5, mode="triangular2")
    assert halved(jnp.array([5, 15, 25, 10**9 + 5])).tolist() == [3, 2, 1.5, 1]


# What holds for every schedule.

EVERY = tuple(dict.fromkeys([row.jopt for row in ROWS] + list(EXACT)))
# One of each factory, for what compiles.
EACH = tuple({build(text).recipe.name: text for text in reversed(EVERY)}.values())
STEPS = (0, 1, 4, 5, 6, 7, 12, 13, 14, 40, 100)


def test_every_schedule_is_in_the_tables():
    made_there = {
        name
        for name in jopt.__all__
        if getattr(getattr(jopt, name), "__module__", "").startswith("jopt.schedules.")
    }
    assert made_there == {build(text).recipe.name for text in EVERY}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", EACH)
def test_one_step_an_array_of_steps_jit_and_vmap_give_the_same(text, width):
    with in_width(width):
        schedule = build(text)

        @jax.jit
        def compiled(counts):
            table = schedule(counts[:, None])
            return (
                schedule(counts),
                schedule(counts[3]),
                table,
                jax.vmap(schedule)(counts),
            )

        values, single, table, mapped = compiled(jnp.array(STEPS))
        assert values.dtype == single.dtype == width
        assert not values.weak_type
        assert single.shape == ()
        assert table.shape == (len(STEPS), 1)
        tolerance = RTOL[width]
        np.testing.assert_allclose(values[3], single, tolerance)
        np.testing.assert_allclose(values[3], schedule(STEPS[3]), tolerance)
        np.testing.assert_allclose(values, table[:, 0], tolerance)
        np.testing.assert_allclose(values, mapped, tolerance)


@pytest.mark.parametrize("text", EACH)
def test_every_integer_dtype_counts_alike(text):
    schedule = build(text)
    values = schedule(jnp.array(STEPS)).tolist()
    for dtype in ("int8", "uint8", "int16", "uint16", "uint32"):
        assert schedule(jnp.array(STEPS, dtype)).tolist() == values, dtype


@pytest.mark.parametrize("text", EACH)
def test_before_step_0_it_is_as_at_step_0(text):
    schedule = build(text)
    assert schedule(jnp.array([-(2**31), -1])).tolist() == [schedule(0)] * 2


@pytest.mark.parametrize("text", EVERY)
def test_a_schedule_is_a_value(text):
    schedule, twin = build(text), build(text)
    assert schedule == twin
    assert hash(schedule) == hash(twin)
    assert build(repr(schedule)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    config = json.loads(json.dumps(jopt.to_config(schedule)))
    again = jopt.from_config(config)
    assert again == schedule
    assert again(STEPS[4]) == schedule(STEPS[4])


def test_schedules_of_other_numbers_are_not_equal():
    schedules = {build(text) for text in EVERY}
    assert len(schedules) == len({repr(x) for x in schedules})
    assert jopt.linear_schedule(1, 0, 10) == jopt.linear_schedule(1.0, 0.0, 10)
    assert jopt.linear_schedule(1, 0, 10) != jopt.linear_schedule(1, 0, 11)


def test_an_optimizer_takes_the_value_of_its_own_step():
    schedule = jopt.warmup_cosine(0.1, warmup_steps=2, total_steps=6)
    tx = jopt.sgd(schedule)

    def step(state, _):
        updates, state = tx.update(jnp.ones(()), state)
        return state, (updates, jopt.hyperparams(state)["learning_rate"])

    _, (updates, rates) = jax.lax.scan(step, tx.init(jnp.ones(())), length=8)
    expected = schedule(jnp.arange(8))
    np.testing.assert_allclose(updates, -expected, 5e-7)
    np.testing.assert_allclose(rates, expected, 5e-7)


# Misuse.


PAIRS = (
    "boundaries_and_scales must be a dict {step: factor}, such as {1000: 0.5}, got"
    " [(5, 0.5)]. For a list of steps and a list of values, use"
    " jopt.piecewise_constant(boundaries, values)"
)
NO_STEPS = "transition_steps must be >= 1, got transition_steps"
NO_TRANSITION = ". For no transition at all, use jopt.constant_schedule(value)"
MISUSE = {
    "constant_schedule(float('nan'))": "value must be a finite number, got value=nan",
    "constant_schedule('0.1')": "value must be a number, got value='0.1'",
    "linear_schedule(1.0, 0.0, 0)": (NO_STEPS + "=0" + NO_TRANSITION),
    "linear_schedule(1.0, 0.0, 2.5)": (
        "transition_steps must be a whole number, got transition_steps=2.5"
    ),
    "linear_schedule(1.0, 0.0, 5, -1)": (
        "transition_begin must be >= 0, got transition_begin=-1"
    ),
    "linear_schedule(float('inf'), 0.0, 5)": (
        "init_value must be a finite number, got init_value=inf"
    ),
    "polynomial_schedule(1.0, 0.0, 0.0, 5)": (
        "power must be > 0 and finite, got power=0.0"
    ),
    "polynomial_schedule(1.0, 0.0, 1.0, -5)": (NO_STEPS + "=-5" + NO_TRANSITION),
    "polynomial_schedule(1.0, 0.0, 1.0, 5, cycle=1)": (
        "cycle must be True or False, got cycle=1"
    ),
    "exponential_decay(1.0, 0, 0.5)": (NO_STEPS + "=0" + NO_TRANSITION),
    "exponential_decay(1.0, 5, 0.0)": (
        "decay_rate must be > 0 and finite, got decay_rate=0.0"
    ),
    "exponential_decay(1.0, 5, -0.5)": (
        "decay_rate must be > 0 and finite, got decay_rate=-0.5"
    ),
    "exponential_decay(1.0, 5, 0.5, -1)": (
        "transition_begin must be >= 0, got transition_begin=-1"
    ),
    "exponential_decay(1.0, 5, 0.5, end_value=2.0)": (
        "end_value must be <= init_value with decay_rate=0.5, got end_value=2.0,"
        " init_value=1.0"
    ),
    "exponential_decay(1.0, 5, 1.5, end_value=0.5)": (
        "end_value must be >= init_value with decay_rate=1.5, got end_value=0.5,"
        " init_value=1.0"
    ),
    "rex_schedule(1.0, 0.0, 0)": (NO_STEPS + "=0" + NO_TRANSITION),
    "rex_schedule(1.0, float('inf'), 5)": (
        "end_value must be a finite number, got end_value=inf"
    ),
    "power_schedule(1.0, 0, 0.5)": "timescale must be >= 1, got timescale=0",
    "power_schedule(1.0, 5, 0.0)": "exponent must be > 0 and finite, got exponent=0.0",
    "power_schedule(1.0, 5, 0.5, -1)": (
        "transition_begin must be >= 0, got transition_begin=-1"
    ),
    "cyclic_schedule(0.0, 1.0, 0)": "up_steps must be >= 1, got up_steps=0",
    "cyclic_schedule(0.0, 1.0, 5, 0)": "down_steps must be >= 1, got down_steps=0",
    "cyclic_schedule(0.0, 1.0, 5, 2.5)": (
        "down_steps must be a whole number, got down_steps=2.5"
    ),
    "cyclic_schedule(0.0, float('nan'), 5)": (
        "peak_value must be a finite number, got peak_value=nan"
    ),
    "cyclic_schedule(0.0, 1.0, 5, mode='triangular3')": (
        "mode must be one of 'triangular', 'triangular2', 'exp_range', got"
        " mode='triangular3'"
    ),
    "cyclic_schedule(0.0, 1.0, 5, gamma=0.9)": (
        "gamma must be 1 with mode='triangular', got gamma=0.9"
    ),
    "cyclic_schedule(0.0, 1.0, 5, mode='exp_range', gamma=0.0)": (
        "gamma must be > 0 and finite, got gamma=0.0"
    ),
    "cyclic_schedule(0.0, 1.0, 5, shape='sine')": (
        "shape must be one of 'linear', 'cosine', got shape='sine'"
    ),
    "linear_cosine_decay(1.0, 0)": "decay_steps must be >= 1, got decay_steps=0",
    "linear_cosine_decay(1.0, 5, 0.0)": (
        "num_periods must be > 0 and finite, got num_periods=0.0"
    ),
    "linear_cosine_decay(1.0, 5, beta=-1.0)": (
        "beta must be >= 0 and finite, got beta=-1.0"
    ),
    "noisy_linear_cosine_decay(1.0, 5, -1.0, key=0)": (
        "initial_variance must be >= 0 and finite, got initial_variance=-1.0"
    ),
    "noisy_linear_cosine_decay(1.0, 5, key=0.5)": (
        "key must be a whole number or an array, got key=0.5"
    ),
    "noisy_linear_cosine_decay(1.0, 5, key=KEYS)": "key must be one key, got 2 of them",
    "multiply_schedules([])": "schedules must be one or more, got none",
    "multiply_schedules([1.0, 'linear'])": (
        "schedules[1] must be a schedule or a number, got 'linear'"
    ),
    "multiply_schedules([float('inf')])": (
        "schedules[0] must be a finite number, got schedules[0]=inf"
    ),
    "multiply_schedules([constant_schedule])": (
        "schedules[0] must be a number or a schedule, got the factory"
        " constant_schedule. Call it: schedules[0]=constant_schedule(…)"
    ),
    "multiplicative_schedule(1.0, 0.9, 5)": (
        "factor_fn must be a function of the step, got 0.9. For a number, use"
        " jopt.exponential_decay(init_value, 1, number)."
    ),
    "multiplicative_schedule(1.0, constant_schedule(0.9), 0)": (
        "total_steps must be >= 1, got total_steps=0"
    ),
    "multiplicative_schedule(1.0, constant_schedule(1e200), 5)": (
        "factor_fn must have finite products, got inf at step 2"
    ),
    "multiplicative_schedule(1.0, lambda step: [0.9], 5)": (
        "what factor_fn returns must be one number, got [0.9]"
    ),
    "sgdr_schedule([])": "cosine_kwargs must be one or more dicts, got none",
    "sgdr_schedule([0.1])": (
        "cosine_kwargs must be a list of dicts, the arguments of"
        " warmup_cosine_decay_schedule, got [0.1]"
    ),
    "sgdr_schedule([dict(init_value=0.0, peak_value=1.0, warmup_steps=5,"
    " decay_steps=5)])": (
        "warmup_steps must be < decay_steps, got warmup_steps=5, decay_steps=5"
    ),
    "inverse_time_decay(1.0, 0, 0.5)": (
        "transition_steps must be >= 1, got transition_steps=0"
    ),
    "inverse_time_decay(1.0, 5, -0.5)": (
        "decay_rate must be >= 0 and finite, got decay_rate=-0.5"
    ),
    "inverse_sqrt_schedule(1.0, 0)": "timescale must be >= 1, got timescale=0",
    "piecewise_constant_schedule(1.0, {-5: 0.5})": (
        "boundaries must be >= 0 and increase, got boundaries=[-5]"
    ),
    "piecewise_constant_schedule(1.0, {2.5: 0.5})": (
        "boundaries[0] must be a whole number, got boundaries[0]=2.5"
    ),
    "piecewise_constant_schedule(1.0, {5: -0.5})": (
        "boundaries_and_scales[5] must be >= 0 and finite, got"
        " boundaries_and_scales[5]=-0.5"
    ),
    "piecewise_constant_schedule(1.0, {5: 0.5}, switch='before')": (
        "switch must be one of 'at', 'after', got switch='before'"
    ),
    "piecewise_constant([5, 3], [1, 2, 3])": (
        "boundaries must be >= 0 and increase, got boundaries=[5, 3]"
    ),
    "piecewise_constant([5, 5], [1, 2, 3])": (
        "boundaries must be >= 0 and increase, got boundaries=[5, 5]"
    ),
    "piecewise_constant([5], [1, 2, 3])": (
        "values must be one more than boundaries, got 3 values for 1 boundaries"
    ),
    "piecewise_constant([5], [1, None])": (
        "values[1] must be a number, got values[1]=None"
    ),
    "piecewise_constant([5], [1, float('inf')])": (
        "values[1] must be a finite number, got values[1]=inf"
    ),
    "cosine_decay_schedule(1.0, 0)": "decay_steps must be >= 1, got decay_steps=0",
    "cosine_decay_schedule(1.0, 5, -0.1)": (
        "alpha must be >= 0 and finite, got alpha=-0.1"
    ),
    "cosine_decay_schedule(1.0, 5, 0.1, 0.0)": (
        "exponent must be > 0 and finite, got exponent=0.0"
    ),
    "cosine_decay_restarts(1.0, 0)": (
        "first_decay_steps must be >= 1, got first_decay_steps=0"
    ),
    "cosine_decay_restarts(1.0, 5, 0.5)": (
        "t_mul must be 1 or >= 1.001 and finite, got t_mul=0.5"
    ),
    "cosine_decay_restarts(1.0, 5, float('nan'))": (
        "t_mul must be 1 or >= 1.001 and finite, got t_mul=nan"
    ),
    "cosine_decay_restarts(1.0, 5, 2.0, -1.0)": (
        "m_mul must be >= 0 and finite, got m_mul=-1.0"
    ),
    "piecewise_interpolate_schedule('cubic', 1.0)": (
        "interpolate_type must be one of 'linear', 'cosine', got"
        " interpolate_type='cubic'"
    ),
    "piecewise_interpolate_schedule('linear', 1.0, {3: -1.0})": (
        "boundaries_and_scales[3] must be >= 0 and finite, got"
        " boundaries_and_scales[3]=-1.0"
    ),
    "linear_onecycle_schedule(0, 1.0)": (
        "transition_steps must be >= 1, got transition_steps=0"
    ),
    "linear_onecycle_schedule(10, 1.0, 0.9)": (
        "pct_final must be > pct_start, got pct_final=0.85, pct_start=0.9"
    ),
    "cosine_onecycle_schedule(10, 1.0, 30.0)": (
        "pct_start must be in [0, 1], got pct_start=30.0"
    ),
    "cosine_onecycle_schedule(10, 1.0, div_factor=0.0)": (
        "div_factor must be > 0 and finite, got div_factor=0.0"
    ),
    "onecycle_schedule(1.0, total_steps=0)": (
        "total_steps must be >= 1, got total_steps=0"
    ),
    "onecycle_schedule(1.0, total_steps=10, pct_start=0.6, three_phase=True)": (
        "pct_start must be <= 0.5 with three_phase=True, got pct_start=0.6"
    ),
    "onecycle_schedule(1.0, total_steps=10, anneal_strategy='cosine')": (
        "anneal_strategy must be one of 'cos', 'linear', got anneal_strategy='cosine'"
    ),
    "warmup_constant_schedule(0.0, 1.0, -1)": (
        "warmup_steps must be >= 0, got warmup_steps=-1"
    ),
    "warmup_cosine_decay_schedule(0.0, 1.0, 10, 10)": (
        "warmup_steps must be < decay_steps, got warmup_steps=10, decay_steps=10"
    ),
    "warmup_exponential_decay_schedule(0.0, 1.0, 5, 10, 0.0)": (
        "decay_rate must be > 0 and finite, got decay_rate=0.0"
    ),
    "warmup_exponential_decay_schedule(0.0, 1.0, 5, 10, 0.5, -2)": (
        "transition_begin must be >= 0, got transition_begin=-2"
    ),
    "warmup_cosine(1.0, warmup_steps=11, total_steps=10)": (
        "warmup_steps must be < total_steps, got warmup_steps=11, total_steps=10"
    ),
    "warmup_cosine(float('nan'), warmup_steps=1, total_steps=10)": (
        "peak_value must be a finite number, got peak_value=nan"
    ),
    "warmup_linear(1.0, warmup_steps=-1, total_steps=10)": (
        "warmup_steps must be >= 0, got warmup_steps=-1"
    ),
    "warmup_stable_decay(1.0, warmup_steps=5, decay_steps=6, total_steps=10)": (
        "total_steps must be >= warmup_steps + decay_steps, got total_steps=10,"
        " warmup_steps=5, decay_steps=6"
    ),
    "warmup_stable_decay(1.0, warmup_steps=5, decay_steps=0, total_steps=10)": (
        "decay_steps must be >= 1, got decay_steps=0"
    ),
    "warmup_stable_decay(1.0, warmup_steps=1, decay_steps=1, total_steps=9,"
    " decay_shape='sqrt')": (
        "decay_shape must be one of 'linear', 'cosine', '1-sqrt', '1-square', got"
        " decay_shape='sqrt'"
    ),
    "warmup_inverse_sqrt(1.0, warmup_steps=0)": (
        "timescale must be given with warmup_steps=0"
    ),
    "join_schedules([constant_schedule(1.0)], [5])": (
        "boundaries must be one fewer than schedules, got 1 boundaries for 1 schedules"
    ),
    "join_schedules([], [])": (
        "boundaries must be one fewer than schedules, got 0 boundaries for 0 schedules"
    ),
    "join_schedules([constant_schedule(1.0)] * 3, [7, 5])": (
        "boundaries must be >= 0 and increase, got boundaries=[7, 5]"
    ),
    "join_schedules([constant_schedule(1.0), 0.1], [5])": (
        "schedules[1] must be a function of the step, got 0.1. For a number, use"
        " jopt.constant_schedule(number)."
    ),
    "swa_schedule(0.1, 5, 0.05)": (
        "schedule must be a function of the step, got 0.1. For a number, use"
        " jopt.constant_schedule(number)."
    ),
    "swa_schedule(constant_schedule(0.1), 5, 0.05, 0)": (
        "anneal_steps must be >= 1, got anneal_steps=0"
    ),
    "swa_schedule(constant_schedule(0.1), 5, 0.05, 3, 'cosine')": (
        "anneal_strategy must be one of 'cos', 'linear', got anneal_strategy='cosine'"
    ),
    "swa_schedule(constant_schedule(0.1), 5, -0.05)": (
        "swa_lr must be >= 0 and finite, got swa_lr=-0.05"
    ),
    "piecewise_constant_schedule(1.0, [(5, 0.5)])": PAIRS,
    "piecewise_interpolate_schedule('linear', 1.0, [(5, 0.5)])": PAIRS,
    "piecewise_constant_schedule(1.0, {'5': 0.5})": (
        "the steps of boundaries_and_scales must be whole numbers, got '5'"
    ),
    "ema_warmup_schedule(1.0)": "decay must be in [0, 1), got decay=1.0",
    "ema_warmup_schedule(0.9, power=0.0)": (
        "power must be > 0 and finite, got power=0.0"
    ),
}


@pytest.mark.parametrize("text", MISUSE)
def test_misuse_is_an_error_that_says_what_is_allowed(text):
    with pytest.raises((ValueError, TypeError)) as error:
        build(text)
    assert str(error.value) == MISUSE[text]


@pytest.mark.parametrize("count", [1j, True])
def test_a_step_that_is_no_number_is_an_error(count):
    with pytest.raises(TypeError, match="a schedule takes the number of a step"):
        jopt.constant_schedule(0.1)(count)


MODULES = [f"jopt.schedules.{m.name}" for m in pkgutil.iter_modules(schedules.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_the_docstrings_are_right(module):
    module = importlib.import_module(module)
    result = doctest.testmod(module)
    assert result.failed == 0
    public = [x for x in vars(module).values() if hasattr(x, "hyperparameters")]
    made_here = [x for x in public if x.__module__ == module.__name__]
    assert all(">>> " in x.__doc__ for x in made_here)
