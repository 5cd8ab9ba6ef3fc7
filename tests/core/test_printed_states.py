"""The repr of a state shows shapes, and nothing else about its class changes."""

import copy
import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import optax
import pytest

import jopt
from tests.tools.table import made


PARAMS = {"b": jnp.ones(3), "w": jnp.ones((768, 2))}
TX = jopt.adam(jopt.tunable(0.1))
STATE = TX.init(PARAMS)


def test_arrays_are_shapes_and_numbers_are_themselves() -> None:
    adam, rate = STATE.values()
    assert repr(adam) == (
        "ScaleByAdamState(\n"
        "    count=0,\n"
        "    mu={'b': float32[3], 'w': float32[768,2]},\n"
        "    nu={'b': float32[3], 'w': float32[768,2]},\n"
        ")"
    )
    assert repr(rate) == "ScaleByLearningRateState(count=0, learning_rate=0.1)"


def test_numbers_that_nobody_knows_are_shapes_too() -> None:
    shown = "ScaleByLearningRateState(count=int32[], learning_rate=float32[])"
    assert repr(jax.eval_shape(TX.init, PARAMS)["scale_by_learning_rate"]) == shown
    traced = []
    jax.eval_shape(lambda state: traced.append(repr(state)), STATE)
    assert shown in traced[0]
    donated = jax.tree.map(jnp.copy, STATE)
    jax.block_until_ready(jax.tree.map(lambda x: x.delete(), donated))
    assert repr(donated["scale_by_learning_rate"]) == shown


@pytest.mark.parametrize(
    "name", ["muon", "sm3", "galore", "schedule_free", "mechanize"]
)
def test_no_state_of_the_library_prints_arrays(name: str) -> None:
    state = made(name).init({"w": jnp.ones((2, 3))})
    assert "Array(" not in repr(jopt.accumulate(made(name), 2).init(PARAMS["w"]))
    assert "Array(" not in repr(state) and "[2,3]" in repr(state)


def test_a_state_is_the_tuple_that_it_was() -> None:
    adam = STATE["scale_by_adam"]
    assert adam._fields == ("count", "mu", "nu") and adam == tuple(adam)
    assert adam._replace(count=3).count == 3
    for again in (pickle.loads(pickle.dumps(adam)), copy.copy(adam)):
        assert type(again) is type(adam) and repr(again) == repr(adam)
    data = flax.serialization.to_bytes(STATE)
    assert jax.tree.structure(flax.serialization.from_bytes(STATE, data)) == (
        jax.tree.structure(STATE)
    )
    assert optax.tree.get(STATE, "learning_rate") == jnp.float32(0.1)


def test_classes_of_others_keep_their_repr() -> None:
    before = optax.ScaleByAdamState.__repr__
    state = jopt.chain(optax.scale_by_adam(), jopt.scale(0.1)).init(PARAMS)
    assert optax.ScaleByAdamState.__repr__ is before
    assert "Array(" in repr(state)
