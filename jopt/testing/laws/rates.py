"""Numbers of the recipe: constant, tunable or scheduled."""

from __future__ import annotations

import functools

import jax
import numpy as np

from jopt.schedules.decay import constant_schedule, linear_schedule
from jopt.state.hyperparams import hyperparams, set_hyperparams
from jopt.testing import comparison, needs
from jopt.testing.law import law
from jopt.testing.problem import as_dtype, stack, update, updates_of
from jopt.testing.subject import Subject
from jopt.values.numbers import tunable


FIX = (
    "annotate every number of the factory that may change with jopt.ScalarOrSchedule, "
    "hand it on to the factories inside, or use it in the rule; do not turn it into a "
    "Python number (float(x)), and do not branch on it."
)


@law("rates", fix=FIX, needs=[needs.numbers])
def a_constant_a_tunable_and_a_schedule_give_the_same_numbers(
    subject: Subject,
) -> None:
    """A constant, a tunable number and a schedule give the same steps and state."""
    params, grads = as_dtype(subject.draw(steps=4), "float32")
    numbers = subject.numbers
    one = subject.make(**{n: tunable(x) for n, x in numbers.items()})
    other = subject.make(**{n: constant_schedule(x) for n, x in numbers.items()})
    state = one.init(params)
    comparison.same_types(
        other.init(params),
        state,
        "the state with schedules, beside that with tunable numbers",
    )
    derived = {"scale", "effective_learning_rate"} - numbers.keys()
    held = hyperparams(state).items()
    found = sorted(float(x) for name, x in held if name not in derived)
    expected = sorted(numbers.values())
    assert len(found) == len(expected) and np.allclose(found, expected, rtol=1e-6), (
        f"jopt.hyperparams finds {found} in the state where the recipe has {expected}"
    )
    if "learning_rate" in numbers:
        rate = constant_schedule(numbers["learning_rate"])
        comparison.same_types(
            subject.make(learning_rate=rate).init(params),
            subject.make().init(params),
            "the state with a scheduled learning rate",
        )

    @jax.jit
    def all_three(params, grads):
        made = (subject.make(), one, other)
        return [updates_of(tx, params, grads) for tx in made]

    expected, *found = all_three(params, grads)
    for how, updates in zip(("tunable", "scheduled"), found, strict=True):
        comparison.close(
            updates,
            expected,
            rtol=3e-5,
            atol=1e-9,
            what=f"the updates (by step) with {how} numbers",
        )


@law("rates", kind="optimizer", fix=FIX, needs=[needs.numbers])
def a_schedule_does_what_setting_the_numbers_by_hand_does(subject: Subject) -> None:
    """A schedule gives the steps of jopt.set_hyperparams with the same numbers."""
    params, grads = as_dtype(subject.draw(steps=3), "float32")
    numbers = subject.numbers
    # Slowly, so that every number stays in its range.
    ramps = {n: linear_schedule(x, 0.0, 100) for n, x in numbers.items()}
    expected = updates_of(subject.make(**ramps), params, grads)

    tx = subject.make(**{n: tunable(x) for n, x in numbers.items()})
    state, step, found = tx.init(params), jax.jit(functools.partial(update, tx)), []
    start = hyperparams(state)
    for t, g in enumerate(grads):
        now = {name: x * (1 - t / 100) for name, x in start.items()}
        state = set_hyperparams(tx, state, **now)
        updates, state = step(g, state, params)
        found.append(updates)
    comparison.close(
        stack(found),
        expected,
        rtol=3e-5,
        atol=1e-8,
        what="the updates (by step) with numbers set by hand",
    )
