"""Schedules that need the value of the step, and schedules of traced numbers."""

import math
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.serialize_executable import serialize

import jopt
from tests.catalogue import ONCE


def halves(step):
    """What users write first."""
    return 0.5 if step < 2 else 0.25


NEED_THE_VALUE = {
    "if": halves,
    "numpy": lambda step: np.exp(-step),
    "interp": lambda step: np.interp(step, [0, 4], [1.0, 0.0]),
    "math": lambda step: 1 / math.sqrt(step + 1),
    "float": lambda step: 1 / float(step + 1),
    "int": lambda step: 0.5 ** int(step),
    "list": lambda step: [0.5, 0.3, 0.2, 0.1][step],
    "boolean index": lambda step: jnp.arange(4.0)[jnp.arange(4) <= step][-1],
}


def run(tx, steps=4):
    """The parameters after some steps outside jit."""
    params = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(0.5 * params, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("kind", NEED_THE_VALUE)
def test_outside_jit_a_schedule_may_need_the_value_of_the_step_as_in_optax(kind):
    schedule = NEED_THE_VALUE[kind]
    with jax.numpy_dtype_promotion("standard"):
        expected = run(optax.sgd(schedule))
    np.testing.assert_allclose(run(jopt.sgd(schedule)), expected, 1e-6)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda f: jopt.sgd(0.1, momentum=lambda step: 0.9 * f(step)),
        lambda f: jopt.chain(jopt.clip_by_global_norm(f), jopt.sgd(f)),
        lambda f: jopt.accumulate(jopt.sgd(f), steps=2),
        lambda f: jopt.accumulate(jopt.sgd(1.0), steps=lambda step: 0.5 / f(step)),
        lambda f: jopt.skip_nonfinite(jopt.adam(f)),
        lambda f: jopt.masked(jopt.adam(f), True),
        lambda f: jopt.muon(f),
        lambda f: jopt.sgd(-1 * jopt.join_schedules([f, f], [2])),
        lambda f: jopt.sgd(jopt.multiplicative_schedule(0.5, f, 3)),
        lambda f: jopt.sgd(jopt.micro_step_schedule(f, 2)),
    ],
)
def test_it_may_be_anywhere_and_gives_the_numbers_of_one_in_jax_numpy(wrapped):
    compiled = wrapped(lambda step: jnp.where(step < 2, 0.5, 0.25))
    np.testing.assert_allclose(run(wrapped(halves)), run(compiled), 1e-6)


@pytest.mark.parametrize("kind", NEED_THE_VALUE)
@pytest.mark.parametrize("nested", [False, True])
def test_under_jit_the_error_names_the_function_and_what_to_write(kind, nested):
    function = NEED_THE_VALUE[kind]
    schedule = jopt.multiply_schedules([2.0, function]) if nested else function
    tx, params = jopt.sgd(schedule), jnp.ones(2)
    state = tx.init(params)
    with pytest.raises(TypeError) as error:
        jopt.step(tx, params, state, params)
    line = function.__code__.co_firstlineno
    assert str(error.value).startswith(
        f"{function.__name__} (test_changing_numbers.py, line {line}), in the schedule "
        "of learning_rate, needs the value of the step"
    )
    assert "jnp.where(" in str(error.value)
    assert "jopt.piecewise_constant(" in str(error.value)
    assert type(error.value.__cause__).__module__ == "jax.errors"


def test_an_error_of_ones_own_in_a_schedule_stays_as_it_is():
    def broken(step):
        raise KeyError("no such rate")

    with pytest.raises(KeyError, match="no such rate"):
        jopt.sgd(broken).init(jnp.ones(2))


def test_a_schedule_in_jax_numpy_is_compiled_once_and_not_run_at_every_step():
    calls = []

    def schedule(step):
        calls.append(step)
        return 1 / (1 + step)

    tx = jopt.sgd(schedule)
    run(tx, steps=2)
    before = len(calls)
    run(tx, steps=50)
    assert len(calls) == before + 1  # the one call of init


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.id)
def test_the_structure_of_every_state_pickles(case):
    params = {"w": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
    structure = jax.tree.structure(jax.eval_shape(case.make().init, params))
    assert pickle.loads(pickle.dumps(structure)) == structure


LOADED = """
import pickle, sys
import jax.numpy as jnp
from jax.experimental.serialize_executable import deserialize_and_load

with open(sys.argv[1], "rb") as file:
    compiled, arguments, expected = pickle.load(file)
new, state = deserialize_and_load(*compiled)(*arguments)
assert jnp.array_equal(new, expected)
assert type(state["scale_by_learning_rate"]).__name__ == "ScaleByLearningRateState"

import jopt

tx = jopt.adam(1e-3)
assert type(state["scale_by_learning_rate"]) is type(
    tx.init(new)["scale_by_learning_rate"]
)
"""


def test_a_compiled_step_runs_in_another_process(tmp_path):
    tx, params = jopt.adam(1e-3), jnp.ones(2)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return jopt.apply_updates(params, updates), state

    arguments = params, tx.init(params), params
    compiled = jax.jit(step).lower(*arguments).compile()
    with open(tmp_path / "step", "wb") as file:
        saved = serialize(compiled), arguments, compiled(*arguments)[0]
        pickle.dump(saved, file)
    command = [sys.executable, "-c", LOADED, str(tmp_path / "step")]
    subprocess.run(command, check=True)
