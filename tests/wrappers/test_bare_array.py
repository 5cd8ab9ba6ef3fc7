"""A bare array as parameters, which wrappers leave out: the tree inside is None."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import update
from tests.catalogue import ONCE, Case
from tests.wrappers.test_old_state import WRAPPERS


P, G = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, -1.0, 2.0])


def check_left_out(inner: Any) -> None:
    """Left out, the array passes unchanged, and the state keeps its types."""
    for tx in (
        jopt.masked(inner, False),
        jopt.partition({"out": inner, "in": jopt.identity()}, "in"),
        jopt.masked(jopt.chain(jopt.identity(), inner=inner), lambda path, leaf: False),
    ):
        state = tx.init(P)
        new, after = update(tx, G, state, P)
        chex.assert_trees_all_equal(new, G)
        assert types(after) == types(state), tx
        new, _ = jax.jit(lambda g, s, p, tx=tx: update(tx, g, s, p))(G, after, P)
        chex.assert_trees_all_equal(new, G)
        chex.assert_trees_all_equal(jopt.eval_params(tx, after, P, default=P), P)


@pytest.mark.parametrize(
    "case", [case for case in ONCE if case.is_optimizer], ids=lambda case: case.id
)
def test_every_optimizer_may_hold_nothing_of_a_bare_array(case: Case) -> None:
    check_left_out(case.make())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_may_hold_nothing_of_a_bare_array(wrapper: str) -> None:
    inner = jopt.adam(0.1) if wrapper == "scale_by_galore" else jopt.adamw(0.1)
    check_left_out(WRAPPERS[wrapper](inner))


@pytest.mark.parametrize(
    "average", [jopt.params_ema(0.5), jopt.params_mean(), jopt.params_lawa(2)]
)
def test_an_average_may_hold_nothing_of_a_bare_array(average: Any) -> None:
    check_left_out(jopt.chain(jopt.adamw(0.1), average))


def test_a_group_that_holds_nothing_leaves_the_average_of_another_alone() -> None:
    averaged = jopt.chain(jopt.sgd(0.1), jopt.params_mean())
    tx = jopt.partition({"out": jopt.adamw(0.1), "in": averaged}, "in")
    _, state = tx.update(G, tx.init(P), P)
    chex.assert_trees_all_close(jopt.eval_params(tx, state, P), P - 0.1 * G)


def test_muon_gives_a_bare_vector_to_adam_as_in_a_dict_of_one_leaf() -> None:
    tx = jopt.muon(0.1)
    updates, _ = tx.update(G, tx.init(P), P)
    expected, _ = tx.update({"": G}, tx.init({"": P}), {"": P})
    chex.assert_trees_all_close(updates, expected[""])


def test_norms_of_nothing_are_zero() -> None:
    tx = jopt.masked(jopt.monitor(jopt.clip_by_global_norm(1.0), keep=True), False)
    _, state = tx.update(G, tx.init(P), P)
    numbers = jopt.metrics(state)
    assert "gradient_norm" in numbers
    assert all(x == 0 for x in numbers.values())


def test_forgotten_parameters_are_still_an_error() -> None:
    for tx in (jopt.adamw(0.1), jopt.masked(jopt.adamw(0.1), True), jopt.muon(0.1)):
        with pytest.raises(TypeError, match="add_decayed_weights needs the parameters"):
            tx.update(G, tx.init(P))
    with pytest.raises(TypeError, match="lookahead needs the parameters"):
        tx = jopt.lookahead(jopt.sgd(0.1))
        tx.update(G, tx.init(P))
