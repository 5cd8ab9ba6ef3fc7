"""The laws of a schedule: a function of the step, under JAX, and a value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.factory import Schedule
from jopt.testing import comparison, needs
from jopt.testing.law import law
from jopt.testing.laws.values import copies
from jopt.testing.subject import Subject


LAST = 2**31 - 1  # the last step of an int32 counter
SOME = (0, 1, 2, 3, 7, 100, 999, 10_000)
TRACED = (
    "the step is an array: use jnp.where, jnp.minimum and jnp.clip instead of if, min "
    "and max, and no int(count) or float(count)."
)


def value(schedule: Any, count: Any) -> Any:
    """The schedule at a step, as an array."""
    return jnp.asarray(schedule(count))


@law("schedules", kind="schedule", fix=TRACED)
def a_schedule_under_jit_gives_the_values_outside(subject: Subject) -> None:
    """Under jit the values are those outside, and a second step does not compile."""
    traces = []

    @jax.jit
    def compiled(count):
        traces.append(1)
        return value(subject.tx, count)

    for count in map(jnp.int32, SOME):
        comparison.close(
            compiled(count),
            value(subject.tx, count),
            rtol=1e-5,
            atol=1e-9,
            what=f"the value of step {count} under jit",
        )
    assert len(traces) == 1, f"{len(SOME)} steps compiled {len(traces)} times"


@law("schedules", kind="schedule", fix=TRACED)
def a_schedule_takes_an_array_of_steps_and_vmap(subject: Subject) -> None:
    """jax.vmap over steps gives the values of single steps, one number each."""
    steps = jnp.asarray(SOME, jnp.int32)
    single = jnp.stack([value(subject.tx, count) for count in steps])
    assert single.shape == (len(SOME),), (
        f"the value of one step has the shape {single.shape[1:]} instead of ()"
    )
    found = jax.vmap(lambda count: value(subject.tx, count))(steps)
    comparison.close(found, single, rtol=1e-5, atol=1e-9, what="the values under vmap")


@law(
    "schedules", kind="schedule", fix=f"compute with jnp on the step, because {TRACED}"
)
def whole_steps_as_int_array_and_float_give_the_same_value(subject: Subject) -> None:
    """A step as a Python int, an int32, or a float gives the same value."""
    for count in SOME:
        expected = value(subject.tx, jnp.int32(count))
        for other in (count, float(count), np.int32(count), jnp.float32(count)):
            comparison.close(
                value(subject.tx, other),
                expected,
                rtol=1e-5,
                atol=1e-9,
                what=f"the value of step {count} as {type(other).__name__}",
            )


@law(
    "schedules",
    kind="schedule",
    fix="return jnp.asarray(value, jnp.float32), or decorate the function that makes "
    "the schedule with @jopt.schedule, which does it.",
    needs=[needs.recipe],
)
def a_value_is_a_strong_float32_or_a_float64_under_x64(subject: Subject) -> None:
    """A value is a float32 number with a strong type; float64 under x64."""
    for x64, dtype in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(x64):
            for count in (0, jnp.int32(3)):
                x = value(subject.make(), count)
                is_right = (str(x.dtype), x.weak_type, x.shape) == (dtype, False, ())
                assert is_right, (
                    f"the value of step {count} is {jax.typeof(x)} where {dtype}[] is "
                    f"expected{' under x64' if x64 else ''}"
                )


@law(
    "schedules",
    kind="schedule",
    fix="bound the step first (jnp.minimum(count, decay_steps)), count in whole "
    "numbers, and divide by numbers that are not zero.",
)
def its_values_are_finite_however_long_the_run_is(subject: Subject) -> None:
    """The values of steps 0 to 10,000 and of step 2,147,483,647 are finite."""
    steps = jnp.asarray([*range(10_001), LAST - 1, LAST], jnp.int32)
    found = np.asarray(
        jax.jit(jax.vmap(lambda count: value(subject.tx, count)))(steps), np.float64
    )
    bad = ~np.isfinite(found)
    assert not bad.any(), (
        f"the value of step {steps[bad.argmax()]} is {found[bad.argmax()]}"
    )


@law(
    "schedules",
    kind="schedule",
    fix="decorate the factory with @jopt.schedule, and give it arguments that can be "
    "compared and written down. Read nothing that is not an argument. pickle finds a "
    "factory at the top level of its module only.",
    needs=[needs.recipe],
)
def equal_schedules_are_equal_and_survive_repr_config_pickle_and_copy(
    subject: Subject,
) -> None:
    """Equal calls make equal schedules, which repr, config, pickle and copy keep."""
    schedule = subject.make()
    expected = value(schedule, 3)
    for how, other in copies(subject).items():
        assert other == schedule, f"{how} differs: {other!r} instead of {schedule!r}"
        assert hash(other) == hash(schedule), f"{how} is equal with another hash"
        comparison.equal(value(other, 3), expected, f"the value of {how}")
    assert schedule != -schedule, "it equals its negative"


@law(
    "schedules",
    kind="schedule",
    fix="decorate the function that makes it with @jopt.schedule.",
    needs=[needs.recipe],
)
def arithmetic_with_a_schedule_gives_a_schedule(subject: Subject) -> None:
    """-s, 1 - s, 2 * s and s / 2 are schedules with those values."""
    s = subject.make()
    x = value(s, 3)
    for text, found, expected in (
        ("-s", -s, -x),
        ("1 - s", 1 - s, 1 - x),
        ("2 * s", 2 * s, 2 * x),
        ("s / 2", s / 2, x / 2),
    ):
        assert isinstance(found, Schedule), f"{text} is {found!r}, not a schedule"
        comparison.close(
            value(found, 3), expected, rtol=1e-6, atol=1e-9, what=f"{text} at step 3"
        )


@law(
    "schedules",
    kind="schedule",
    fix="annotate the numbers of the factory that may be traced with float, do not "
    "turn them into Python numbers (float(x)), and do not branch on them.",
    needs=[needs.recipe],
)
def its_numbers_may_be_traced(subject: Subject) -> None:
    """Under vmap over its first number the values are those of a loop."""
    name, x = next(iter(subject.traceable.items()), (None, 0.0))
    if name is None:
        return
    values = jnp.asarray([x, 0.75 * x], jnp.float32)
    found = jax.vmap(lambda x: value(subject.make(**{name: x}), 3))(values)
    expected = jnp.stack([value(subject.make(**{name: float(x)}), 3) for x in values])
    what = f"the values of step 3 under vmap over {name}"
    comparison.close(found, expected, rtol=3e-5, atol=1e-7, what=what)
