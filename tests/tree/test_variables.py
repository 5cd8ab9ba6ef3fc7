"""Trees with nnx's Variables, and the arrays inside them."""

import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jopt
from jopt.state.metrics import Seen
from jopt.tree.variables import sees_arrays, with_variables, without_variables


ONE, TWO = jnp.ones(2), jnp.full(2, 2.0)


def test_variables_become_their_contents() -> None:
    tree = nnx.State({"a": nnx.Param(ONE), "b": {"c": nnx.BatchStat(TWO)}, "d": ONE})
    found = without_variables(tree)
    assert jax.tree.structure(found) == jax.tree.structure(nnx.as_pure(tree))
    chex.assert_trees_all_equal(found, nnx.as_pure(tree))


def test_a_variable_may_contain_a_tree_with_variables() -> None:
    tree = {"a": nnx.Variable({"b": ONE, "c": nnx.Param(TWO)})}
    found = without_variables(tree)
    assert jax.tree.structure(found) == jax.tree.structure({"a": {"b": 0, "c": 0}})
    again = with_variables(found, tree)
    assert jax.tree.structure(again) == jax.tree.structure(tree)


def test_a_tree_without_variables_is_returned_itself() -> None:
    for tree in ({"a": ONE}, [ONE, None], ONE, None, ()):
        assert without_variables(tree) is tree
        assert with_variables(tree, {"a": TWO}) is tree


def test_the_classes_and_metadata_of_variables_come_back() -> None:
    like = {"a": nnx.Param(ONE, about="a"), "b": nnx.OptState(ONE), "c": ONE, "d": None}
    tree = {"a": TWO, "b": ONE, "c": TWO, "d": None}
    found = with_variables(tree, like)
    assert jax.tree.structure(found) == jax.tree.structure(like)
    assert found["a"].get_metadata()["about"] == "a"
    chex.assert_trees_all_equal(without_variables(found), tree)


def test_a_tree_of_another_structure_stays_as_it_is() -> None:
    tree = {"other": ONE}
    assert with_variables(tree, {"a": nnx.Param(ONE)}) is tree


def test_a_node_without_leaves_keeps_what_it_carries() -> None:
    seen = Seen()
    seen.values = {"norm": ONE}
    tree = {"a": nnx.Param(ONE), "b": seen}
    found = without_variables(tree)
    assert found["b"] is seen
    assert with_variables(found, tree)["b"] is seen


def test_a_function_sees_arrays_and_returns_variables() -> None:
    @sees_arrays("x", "y")
    def swapped(x: Any, /, *, y: Any = None) -> Any:
        assert isinstance(x["a"], jax.Array)
        return y, x

    x, y = {"a": nnx.Param(ONE)}, {"a": nnx.OptState(TWO)}
    first, second = swapped(x, y=y)
    chex.assert_trees_all_equal((first["a"][...], second["a"][...]), (TWO, ONE))
    assert (type(first["a"]), type(second["a"])) == (nnx.Param, nnx.OptState)
    assert swapped(x)[0] is None


def test_metrics_are_in_the_state_that_an_update_of_variables_returns() -> None:
    tx = jopt.monitor(jopt.adam(0.5))
    params = nnx.State({"w": nnx.Param(ONE)})

    @jax.jit
    def norms(params):
        _, state = tx.update(params, tx.init(params), params)
        return jopt.metrics(state)

    assert float(norms(params)["gradient_norm"]) == pytest.approx(2**0.5)


def test_an_argument_that_nobody_declares_may_be_any_object() -> None:
    tx, params = jopt.sgd(1.0), nnx.State({"w": nnx.Param(ONE)})
    mixed = {1: "a", "b": 2}  # JAX cannot sort these keys
    updates, _ = tx.update(params, tx.init(params), params, batch=mixed)
    chex.assert_trees_all_equal(updates["w"][...], -ONE)


def test_variables_do_not_import_flax() -> None:
    code = (
        "import sys, jopt, jax.numpy as jnp; tx = jopt.adam(0.1); p = jnp.ones(2);"
        "jopt.step(tx, p, tx.init(p), p); sys.exit('flax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
