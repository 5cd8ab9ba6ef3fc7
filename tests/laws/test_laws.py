"""The laws of `jopt.testing`, for every case of the catalogue."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jopt
from jopt import testing
from jopt.interop.flax import TrainState
from jopt.testing import comparison
from jopt.testing.laws import checkpoints
from jopt.testing.problem import as_dtype, loss, trajectory
from jopt.values import registry
from tests.catalogue import CASES, ONCE, WITHOUT_ROW, Case, file_of


# What the options of a factory decide; other laws are tested with one case of each.
OF_OPTIONS = ["equal_recipes*", "twenty_steps*float64", "it_descends*"]
# In test_composition.py, and for all states at once below and in test_resume.py.
ELSEWHERE = [
    "it_gives_the_same_numbers_inside_every_wrapper",
    "a_restored_run_goes_on_to_the_same_bits",
    "its_state_passes_through_*",
]


def but(*patterns: str) -> list[str]:
    """The names of the laws that no pattern fits."""
    left_out = {name for pattern in patterns for name in testing.names(pattern)}
    return [name for name in testing.names() if name not in left_out]


@testing.parametrize_with_laws(CASES, only=OF_OPTIONS)
def test_the_law_holds_for_every_case(tx: Case, law: Any) -> None:
    law(tx)


@testing.parametrize_with_laws(ONCE, only=but(*OF_OPTIONS, *ELSEWHERE))
def test_the_law_holds(tx: Case, law: Any) -> None:
    law(tx)


def test_every_factory_has_a_row() -> None:
    made = {name for name in jopt.names() if _makes_transformation(name)}
    declared = {case.name for case in CASES} | set(WITHOUT_ROW)
    missing = {
        f"{name}: add a Case to CASES in {file_of(registry.factories()[name])}"
        for name in made - declared
    }
    assert not missing
    assert declared <= made


def _makes_transformation(name: str) -> bool:
    factory = registry.factories()[name]
    made = factory.__annotations__.get("return")
    is_ours = factory.__module__.startswith("jopt.")  # tests register their own
    return is_ours and made == "GradientTransformation"


@pytest.mark.parametrize("way", [checkpoints.msgpack, checkpoints.orbax])
def test_every_state_passes_through_other_libraries_checkpoints(way: Any) -> None:
    checkpoints.passes_through(
        way, {case.id: checkpoints.numbered(case) for case in CASES}
    )


@pytest.mark.parametrize(
    "case", [case for case in ONCE if case.needs_value], ids=lambda case: case.id
)
def test_an_optimizer_that_needs_the_loss_works_in_our_trainstate(case: Case) -> None:
    # Flax's TrainState does not pass a value on.
    params, grads = as_dtype(case.draw(steps=4), jnp.float32)
    expected = trajectory(case.make(), params, grads)
    state: Any = TrainState.create(apply_fn=None, params=params, tx=case.make())
    for g in grads:
        state = state.apply_gradients(grads=g, value=loss(state.params))
    last = jax.tree.map(lambda x: x[-1], expected)
    comparison.close(state.params, last, rtol=1e-5, atol=1e-7)
