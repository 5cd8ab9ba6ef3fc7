"""Schedules and tunable numbers in arithmetic with numbers stay values."""

from __future__ import annotations

import json
import operator
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt


LINE = jopt.linear_schedule(0.5, 0.0, 4)
ARITHMETIC = [
    lambda x: -x,
    lambda x: +x,
    lambda x: 3 * x,
    lambda x: x * np.float32(3),
    lambda x: np.float64(3) * x,
    lambda x: jnp.float32(3) * x,
    lambda x: x / 4,
    lambda x: x + 1,
    lambda x: np.float32(1) + x,
    lambda x: x - 1,
    lambda x: 1 - x,
    lambda x: -(2 * (x - 1)) / 4,
]


@pytest.mark.parametrize("compute", ARITHMETIC)
def test_a_schedule_in_arithmetic_is_a_schedule_of_the_results(compute: Any) -> None:
    schedule = compute(LINE)
    for step in range(6):
        assert float(schedule(step)) == compute(float(LINE(step)))
    assert schedule == compute(jopt.linear_schedule(0.5, 0.0, 4))
    assert hash(schedule) == hash(compute(LINE))
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert (
        jopt.from_config(json.loads(json.dumps(jopt.to_config(schedule)))) == schedule
    )
    assert jopt.from_config(repr(schedule)) == schedule


@pytest.mark.parametrize("compute", ARITHMETIC)
def test_a_tunable_in_arithmetic_is_a_tunable_of_the_result(compute: Any) -> None:
    assert compute(jopt.tunable(0.5)) == jopt.tunable(compute(0.5))


def test_arithmetic_of_a_traced_tunable_works_under_vmap() -> None:
    def first_update(rate):
        tx = jopt.scale(-2 * jopt.tunable(rate))
        return tx.update(jnp.ones(()), tx.init(jnp.ones(())))[0]

    updates = jax.vmap(first_update)(jnp.array([0.5, 1.0]))
    np.testing.assert_array_equal(updates, [-1.0, -2.0])


@pytest.mark.parametrize("rate", [LINE, jopt.tunable(0.5)], ids=["schedule", "tunable"])
def test_scale_by_the_negative_rate_is_the_optimizer(rate: Any) -> None:
    """As programs for optax write it: chain(scale_by_adam(), scale(-rate))."""
    params = jnp.ones(3)
    steps = []
    for tx in (jopt.chain(jopt.scale_by_adam(), jopt.scale(-rate)), jopt.adam(rate)):
        state, p = tx.init(params), params
        for _ in range(3):
            updates, state = tx.update(p, state)
            p = jopt.apply_updates(p, updates)
        steps.append(p)
    np.testing.assert_array_equal(*steps)


@pytest.mark.parametrize(
    "value", [LINE, jopt.tunable(0.5)], ids=["schedule", "tunable"]
)
@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda x: x * x, r"jopt\.multiply_schedules\(\[…\]\)"),
        (lambda x: x * jopt.tunable(2.0), r"jopt\.scale\(jopt\.tunable\(number\)\)"),
        (lambda x: x + jnp.ones(3), "must be one number"),
        (lambda x: np.ones(3) * x, "must be one number"),
        (lambda x: x * True, "must be one number"),
        (lambda x: x - "1", "must be one number"),
        (lambda x: x**2, "function of the step, such as lambda step"),
        (lambda x: 1 / x, "function of the step, such as lambda step"),
        (lambda x: x > 0, "function of the step, such as lambda step"),
        (abs, "function of the step, such as lambda step"),
        (float, "function of the step, such as lambda step"),
    ],
)
def test_other_arithmetic_is_an_error_that_says_what_to_write(
    value: Any, compute: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        compute(value)


@pytest.mark.parametrize(
    "value", [LINE, jopt.tunable(0.5)], ids=["schedule", "tunable"]
)
def test_arithmetic_gives_finite_numbers_only(value: Any) -> None:
    with pytest.raises((ValueError, ZeroDivisionError), match=r"finite|by zero"):
        operator.truediv(value, 0)


def by_hand(learning_rate, b1=0.9, nesterov: bool = False, axis: int = 0):
    """A factory as levanter builds it, without a decorator."""
    parts = [jopt.clip_by_global_norm(1.0), jopt.scale_by_adam(b1, nesterov=nesterov)]
    return jopt.chain(*parts, jopt.scale(-learning_rate))


def test_inject_hyperparams_takes_a_factory_that_is_not_decorated() -> None:
    params = {"w": jnp.ones(3)}
    made = jopt.inject_hyperparams(by_hand)(learning_rate=LINE)
    assert made == by_hand(LINE, b1=jopt.tunable(0.9))
    made = jopt.inject_hyperparams(by_hand)(0.5, b1=LINE, nesterov=True)
    assert made == by_hand(jopt.tunable(0.5), LINE, nesterov=True)
    made = jopt.inject_hyperparams(by_hand, static_args="b1")(0.5)
    assert made == by_hand(jopt.tunable(0.5))
    state = made.init(params)
    assert set(jopt.hyperparams(state)) == {"step_size"}
    state = jopt.set_hyperparams(made, state, step_size=-0.25)
    updates, _ = made.update(params, state)
    np.testing.assert_allclose(updates["w"], -0.25, rtol=1e-6)


def test_a_schedule_in_an_undecorated_factory_gives_what_optax_gives() -> None:
    def factory(library):
        def make(learning_rate, b1=0.9):
            return library.chain(
                library.clip_by_global_norm(1.0),
                library.trace(b1),
                library.scale(-learning_rate),
            )

        return make

    params = jnp.arange(3.0)
    ends = []
    for library in (jopt, optax):
        rate = library.linear_schedule(0.5, 0.0, 4)
        tx: Any = library.inject_hyperparams(factory(library), "b1")(rate)
        state, p = tx.init(params), params
        for _ in range(3):
            with jax.numpy_dtype_promotion("standard"):  # which optax needs
                updates, state = tx.update(p, state, p)
            p = optax.apply_updates(p, updates)
        ends.append(p)
    np.testing.assert_allclose(*ends, rtol=1e-6)


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        (lambda: jopt.inject_hyperparams(jopt.adam(0.1)), "needs a factory, such as"),
        (lambda: jopt.inject_hyperparams(0.1), "needs a factory, such as"),
        (
            lambda: jopt.inject_hyperparams(optax.adam)(0.1),
            "use optax.inject_hyperparams",
        ),
        (lambda: jopt.inject_hyperparams(lambda rate: None)(0.1), "returned None"),
    ],
)
def test_inject_hyperparams_needs_a_factory_of_this_library(
    inject: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        inject()
