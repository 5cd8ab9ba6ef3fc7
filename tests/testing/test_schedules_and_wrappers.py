"""The laws of schedules and wrappers: what is right passes, and what is wrong fails."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jopt
from jopt import testing
from jopt.testing.laws import LAWS


SCHEDULES = [
    jopt.warmup_cosine_decay_schedule(0.0, 0.5, 100, 1000),
    jopt.join_schedules(
        [jopt.constant_schedule(0.1), jopt.rex_schedule(1.0, 0.0, 99)], [50]
    ),
    1 - 2 * jopt.inverse_time_decay(0.5, 10, 0.5),
]


@testing.parametrize_with_laws(SCHEDULES)
def test_schedules_of_ours_obey_the_laws(tx: Any, law: Any) -> None:
    law(tx)


def test_a_function_of_the_step_is_a_schedule_without_a_recipe() -> None:
    with jax.numpy_dtype_promotion("standard"):
        found = testing.check(lambda step: 0.1 / (1 + 0.01 * step))
    assert len(found.passed) == 4
    assert {"@jopt.schedule" in r.message for r in found.skipped} == {True}


def branching(step: Any) -> Any:
    return 0.1 if step < 100 else 0.01


def overflowing(step: Any) -> Any:
    return jnp.exp(jnp.asarray(step, jnp.float32) / 100)


def of_all_steps(step: Any) -> Any:
    return jnp.ones(3, jnp.int32) * jnp.asarray(step, jnp.int32)


def of_whole_steps(step: Any) -> Any:
    return 0.1 * (jnp.asarray(step).dtype == jnp.int32)


WRONG = {
    branching: "jax.errors|TracerBool",
    overflowing: "the value of step [0-9]+ is inf",
    of_all_steps: r"the value of one step has the shape \(3,\) instead of \(\)",
    of_whole_steps: r"the value of step 0 as float is 0, expected 0\.1",
}


@pytest.mark.parametrize("schedule", WRONG, ids=lambda schedule: schedule.__name__)
def test_what_is_wrong_with_a_schedule_is_found(schedule: Any) -> None:
    with pytest.raises(AssertionError, match=f"(?s)FAILED.*{WRONG[schedule]}"):
        testing.check(schedule)


WRAPPER_LAWS = ["wrappers", "jit*", "memory"]


def test_a_wrapper_is_tested_by_itself_and_around_two_optimizers() -> None:
    found = testing.check(jopt.skip_nonfinite, only=WRAPPER_LAWS)
    groups = list(dict.fromkeys(r.group for r in found))
    assert groups == [
        "wrappers",
        "running (around sgd(learning_rate=0.1))",
        "memory (around sgd(learning_rate=0.1))",
        "running (around adamw(learning_rate=0.001))",
        "memory (around adamw(learning_rate=0.001))",
    ]
    assert len(found.passed) == 7


def forgetful(inner: Any) -> Any:
    """Hands nothing on, and counts in a state that an update makes wider."""

    def init(params: Any) -> Any:
        return 0, inner.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, inner_state = state
        updates, inner_state = inner.update(updates, inner_state, params)
        return updates, (count + 1.0, inner_state)

    return jopt.GradientTransformation(init, update)


def test_what_is_wrong_with_a_wrapper_is_found() -> None:
    found = testing.report(forgetful, only=[*WRAPPER_LAWS, "types"])
    failed = {r.law: r for r in found.failed}
    assert "what_the_inner_one_needs_is_passed_on" in failed
    assert (
        'children={"inner_state": inner}'
        in failed["what_the_inner_one_needs_is_passed_on"].fix
    )
    assert "types_never_change" in failed


def test_a_lambda_around_a_wrapper_with_arguments_is_a_wrapper() -> None:
    subject = testing.Subject(lambda inner: jopt.accumulate(inner, 2))
    assert subject.kind == "wrapper"
    assert testing.Subject(jax.nn.relu).kind == "schedule"


# With pytest.


def test_parametrize_with_laws_names_every_case_and_skips_with_the_reason() -> None:
    mark = testing.parametrize_with_laws(
        [testing.Subject(jopt.sgd(0.1), without={"errors": "tried by hand"})],
        only=["types", "*shapes*", "numbers"],
    )
    names, rows = mark.mark.args
    assert names == ("tx", "law")
    assert [row.id for row in rows] == [
        "types_never_change-sgd(learning_rate=0.1)",
        "wrong_shapes_are_refused_with_the_path_of_the_leaf-sgd(learning_rate=0.1)",
        "twenty_steps_equal_the_twin_in_float64-sgd(learning_rate=0.1)",
        "twenty_steps_equal_the_twin_in_float32-sgd(learning_rate=0.1)",
    ]
    reasons = []
    for tx, law in (row.values for row in rows[1:]):
        with pytest.raises(pytest.skip.Exception) as skipped:
            law(tx)
        reasons.append(str(skipped.value))
    assert reasons[0] == "tried by hand"
    assert reasons[1] == "no second implementation was given: expected=twin"


def test_a_law_can_be_called_and_says_how_to_mend_what_is_wrong() -> None:
    law = next(law for law in LAWS if law.name.startswith("its_values"))
    with pytest.raises(AssertionError, match=r"is inf\nFix: bound the step first"):
        law(overflowing)
