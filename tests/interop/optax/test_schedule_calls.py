"""The door's schedules, against optax's, for all arguments that optax takes."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.interop.optax import schedules


# optax itself does not run under strict promotion.
pytestmark = pytest.mark.usefixtures("as_jax_is_delivered")


@pytest.fixture
def as_jax_is_delivered():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# Calls that jopt's own schedule takes too.
PLAIN: list[tuple[str, tuple[Any, ...]]] = [
    ("constant_schedule", (0.3,)),
    ("constant_schedule", (-2,)),
    ("linear_schedule", (0.1, 1.0, 10)),
    ("linear_schedule", (-1.0, -3.0, 10, 4)),
    ("polynomial_schedule", (1.0, 0.1, 2, 10)),
    ("polynomial_schedule", (1.0, 0.1, 0.5, 10, 3)),
    ("exponential_decay", (1.0, 4, 0.5)),
    ("exponential_decay", (-1.0, 4, 0.5, 2, True)),
    ("exponential_decay", (1.0, 4, 1.5, 0, False, 3.0)),
    ("cosine_decay_schedule", (1.0, 12, 0.1)),
    ("cosine_decay_schedule", (-1.0, 12, 0.0, 2.0)),
    ("piecewise_constant_schedule", (1.0, {4: 0.5, 9: 0.0})),
    ("piecewise_constant_schedule", (1.0,)),
    ("piecewise_interpolate_schedule", ("linear", 1.0, {4: 3.0, 9: 0.5})),
    ("piecewise_interpolate_schedule", ("cosine", 1.0, {0: 2.0, 9: 0.5})),
    ("piecewise_interpolate_schedule", ("cosine", 1.0)),
    ("linear_onecycle_schedule", (20, 1.0)),
    ("linear_onecycle_schedule", (3, 1.0)),
    ("cosine_onecycle_schedule", (20, -1.0)),
    ("warmup_constant_schedule", (0.0, 1.0, 5)),
    ("warmup_cosine_decay_schedule", (0.0, 1.0, 5, 20)),
    ("warmup_cosine_decay_schedule", (0.5, 1.0, 0, 20, -0.1, 2.0)),
    ("warmup_cosine_decay_schedule", (0.0, -1.0, 5, 20, 0.1, 0.5)),
    ("warmup_exponential_decay_schedule", (0.0, 1.0, 5, 4, 0.5, 2, False, 0.2)),
    ("join_schedules", ([optax.constant_schedule(1.0)] * 2, [7])),
]
# Calls that it refuses, or for which its numbers are others.
LENIENT: list[tuple[str, tuple[Any, ...]]] = [
    ("constant_schedule", (jnp.inf,)),
    ("constant_schedule", (jnp.arange(3.0),)),
    ("linear_schedule", (0.2, 1.0, 0)),
    ("linear_schedule", (0.2, 1.0, -3)),
    ("linear_schedule", (0.2, 1.0, 7.5)),
    ("linear_schedule", (0.2, 1.0, 7, -2)),
    ("linear_schedule", (0.2, 1.0, 7.25, 1.5)),
    ("linear_schedule", (jnp.array([0.0, 1.0]), 2.0, 8)),
    ("polynomial_schedule", (0.2, 1.0, 0, 8)),
    ("polynomial_schedule", (0.2, 1.0, 2, 8.5)),
    ("exponential_decay", (1.0, 0, 0.5)),
    ("exponential_decay", (1.0, 4, 0)),
    ("exponential_decay", (1.0, 4, -0.5, 0, True)),
    ("exponential_decay", (1.0, 4.5, 0.5, 1.5)),
    ("exponential_decay", (1.0, 4, 0.5, -3)),
    ("exponential_decay", (1.0, 4, 1.5, 0, False, 0.5)),
    ("cosine_decay_schedule", (1.0, 12, -0.5)),
    ("cosine_decay_schedule", (1.0, 12.5, 0.1)),
    ("piecewise_constant_schedule", (1.0, {4.5: 0.5, -1: 2.0})),
    ("piecewise_interpolate_schedule", ("linear", 1.0, {4.5: 3.0, 9: 0.5})),
    ("linear_onecycle_schedule", (20, 1.0, 0.9, 0.3)),
    ("cosine_onecycle_schedule", (20, 1.0, 1.25)),
    ("warmup_constant_schedule", (0.1, 1.0, 0)),
    ("warmup_cosine_decay_schedule", (0.1, 0.0, 5, 20, 0.3)),
    ("warmup_cosine_decay_schedule", (0.1, 1.0, 4.5, 20)),
    ("warmup_exponential_decay_schedule", (0.1, 1.0, 5, 0, 0.5)),
    ("warmup_exponential_decay_schedule", (0.1, 1.0, 5, 4, 0.5, -1)),
    ("join_schedules", ([optax.linear_schedule(1.0, 0.0, 4)] * 2, [4.5])),
    ("join_schedules", ([optax.linear_schedule(1.0, 0.0, 4)] * 3, [9, 4])),
    ("join_schedules", ([optax.constant_schedule(1.0)], [4, 5])),
]
WHOLE = jnp.arange(24)
HALVES = jnp.arange(48) / 2


def both(name: str, args: tuple[Any, ...]) -> tuple[Any, Any]:
    return getattr(schedules, name)(*args), getattr(optax.schedules, name)(*args)


def spread(value: Any, counts: jax.Array) -> np.ndarray:
    """A value that is the same at all steps is not repeated by optax."""
    shape = np.broadcast_shapes(np.shape(value), np.shape(counts))
    return np.broadcast_to(np.asarray(value, float), shape)


@pytest.mark.parametrize(("name", "args"), PLAIN + LENIENT)
def test_values_are_optaxs(name: str, args: tuple[Any, ...]) -> None:
    ours, theirs = both(name, args)
    if any(np.ndim(x) and isinstance(x, jax.Array) for x in args):
        batches = itertools.chain(WHOLE[:9], HALVES[:9])  # values that are arrays
    else:
        batches = iter((WHOLE, HALVES))
    for counts in batches:
        # Some of optax's take one step at a time.
        values = jax.vmap(theirs)(counts) if counts.ndim else theirs(counts)
        expected = spread(values, counts)
        bound = 1e-6 * max(1.0, np.max(np.abs(expected)))
        np.testing.assert_allclose(spread(ours(counts), counts), expected, atol=bound)


@pytest.mark.parametrize(("name", "args"), PLAIN)
def test_what_jopt_takes_is_jopts_schedule_with_its_recipe(name: str, args) -> None:
    schedule = getattr(schedules, name)(*args)
    assert isinstance(schedule, jopt.Schedule)
    if name != "warmup_constant_schedule":  # a line, which is what it is in optax
        assert schedule == getattr(jopt, name)(*args)
    if name != "join_schedules":
        assert jopt.from_config(jopt.to_config(schedule)) == schedule


def test_restarts_take_any_iterable_of_dicts() -> None:
    cycles = [
        {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 8},
        {"init_value": 0.0, "peak_value": 0.0, "warmup_steps": 2, "decay_steps": 6,
         "end_value": 0.5},
        {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 6},
    ]  # fmt: skip
    expected = optax.sgdr_schedule(cycles)(WHOLE)
    for given in (cycles, iter(cycles)):
        found = schedules.sgdr_schedule(given)(WHOLE)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_schedule_has_optaxs_arguments() -> None:
    for name in schedules.__all__:
        if "inject" in name or not inspect.isfunction(getattr(schedules, name)):
            continue
        ours, theirs = (
            inspect.signature(getattr(m, name)).parameters
            for m in (schedules, optax.schedules)
        )
        assert [*ours] == [*theirs]
        assert [p.default for p in ours.values()] == [
            p.default for p in theirs.values()
        ]
        assert name == "sgdr_schedule" or name in {called for called, _ in PLAIN}


def test_a_schedule_runs_under_jit_as_outside() -> None:
    for name, args in (*PLAIN[-2:], *LENIENT[-4:]):
        ours, theirs = both(name, args)
        np.testing.assert_allclose(jax.jit(ours)(7), theirs(7), atol=1e-6)
        np.testing.assert_allclose(ours(7), theirs(7), atol=1e-6)


def test_functions_with_an_if_can_be_joined() -> None:
    def half(step):
        return 1.0 if step < 2 else 0.5

    joined = schedules.join_schedules([half, half], [4])
    assert [float(joined(i)) for i in range(8)] == [1, 1, 0.5, 0.5, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cosine_decay_schedule", (1.0, 0)),
        ("warmup_cosine_decay_schedule", (0.0, 1.0, 10, 10)),
        ("piecewise_constant_schedule", (1.0, {3: -0.1})),
        ("piecewise_interpolate_schedule", ("linear", 1.0, {3: -0.1})),
        ("piecewise_interpolate_schedule", ("quadratic", 1.0, {3: 1.0})),
        ("linear_onecycle_schedule", (0, 1.0)),
        ("cosine_onecycle_schedule", (-1, 1.0)),
    ],
)
def test_what_optax_refuses_is_refused(name: str, args: tuple[Any, ...]) -> None:
    for module in (schedules, optax.schedules):
        with pytest.raises(ValueError):
            getattr(module, name)(*args)
