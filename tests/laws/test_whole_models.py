"""A whole model as the parameters: leaves that are not arrays pass through.

Equinox keeps functions, numbers and texts among the leaves of a model. Its gradients
are None there.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

import jopt
from jopt.testing.problem import small
from tests.catalogue import CASES, Case


once = pytest.mark.parametrize(
    "case",
    list({case.name: case for case in reversed(CASES)}.values()),
    ids=lambda case: case.id,
)
ARRAYS, GRADS = small()
STATIC = {
    "count": jnp.arange(3),
    "function": jax.nn.relu,
    "nothing": None,
    "number": 0.5,
    "text": "same",
    "training": True,
}
NO_GRADIENT = dict.fromkeys(STATIC)


def update(tx: Any, grads: Any, state: Any, params: Any) -> Any:
    return tx.update(grads, state, params, value=jnp.float32(1.5))


@once
def test_leaves_that_are_not_arrays_pass_through_where_gradients_are_none(
    case: Case,
) -> None:
    tx = case.make()
    whole, grads = ARRAYS | STATIC, GRADS | NO_GRADIENT
    without = ARRAYS | NO_GRADIENT
    state = tx.init(without)
    updates, new_state = update(tx, grads, state, whole)
    expected = update(tx, grads, state, without)
    chex.assert_trees_all_equal((updates, new_state), expected)
    new = jopt.apply_updates(whole, updates)
    assert all(new[name] is STATIC[name] for name in STATIC)
    evaluated = jopt.eval_params(tx, new_state, whole, default=whole)
    for name in ("function", "nothing", "text", "training"):
        assert evaluated[name] is STATIC[name]


@once
def test_elsewhere_the_error_names_the_leaf(case: Case) -> None:
    tx = case.make()
    whole, without = ARRAYS | STATIC, ARRAYS | NO_GRADIENT
    del whole["count"], without["count"]
    with pytest.raises(TypeError, match="leaf 'text' is 'same', not an array"):
        tx.init(whole)
    state = tx.init(without)
    for wrong in ({"text": jnp.ones(2)}, {"text": "gradient"}):
        with pytest.raises((TypeError, ValueError), match="leaf 'text'"):
            update(tx, {**without, **GRADS, **wrong}, state, whole)


@pytest.mark.parametrize("name", ["prodigy", "dog", "dowg", "momo", "adamw", "muon"])
def test_a_whole_equinox_model_trains_as_its_arrays_do(name: str) -> None:
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.Sequential(
        [
            eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0)),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.5, inference=True),
        ]
    )
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    x = jnp.linspace(0, 1, 3)
    tx = jopt.monitor(jopt.get(name, learning_rate=0.1))

    def loss(model: Any) -> Any:
        return jnp.sum((model(x) - 2.0) ** 2)

    state = tx.init(arrays)
    value, grads = eqx.filter_value_and_grad(loss)(model)
    step = eqx.filter_jit(tx.update)
    updates, _ = step(grads, state, model, value=value)
    chex.assert_trees_all_equal(updates, step(grads, state, arrays, value=value)[0])
    after = jopt.apply_updates(model, updates)
    chex.assert_trees_all_equal(eqx.apply_updates(model, updates), after)
    assert eqx.tree_equal(eqx.filter(after, eqx.is_inexact_array, inverse=True), static)
    stepped, _ = jopt.step(tx, grads, state, model, value=value)
    chex.assert_trees_all_close(
        eqx.filter(stepped, eqx.is_inexact_array),
        eqx.filter(after, eqx.is_inexact_array),
        rtol=1e-6,
    )
    assert stepped[1].fn is jax.nn.relu
    with pytest.raises(TypeError, match=r"inference' is .*eqx\.filter"):
        tx.children["inner_state"].init(model)


def test_a_mask_function_does_not_see_what_is_not_an_array() -> None:
    tx = jopt.partition(
        {"matrix": jopt.adam(0.1), "vector": jopt.sgd(0.1, 0.9)},
        lambda path, leaf: "matrix" if leaf.ndim == 2 else "vector",
    )
    state = tx.init(ARRAYS | NO_GRADIENT)
    updates, _ = tx.update(GRADS | NO_GRADIENT, state, ARRAYS | STATIC)
    alone, _ = tx.update(GRADS, tx.init(ARRAYS), ARRAYS)
    chex.assert_trees_all_equal({n: updates[n] for n in alone}, alone)


def test_an_array_without_a_gradient_stays_visible_beside_what_is_not_an_array() -> (
    None
):
    tx = jopt.monitor(jopt.sgd(0.1), keep=True)
    params = {"f": jax.nn.relu, "frozen": jnp.full(1, 3.0), "w": jnp.full(1, 4.0)}
    grads = {"f": None, "frozen": None, "w": jnp.ones(1)}
    _, state = tx.update(grads, tx.init(params | {"f": None}), params)
    assert jopt.metrics(state)["param_norm"] == 5.0


@pytest.mark.parametrize("grads", [{"f": None, "layer": None}, {"f": None}])
def test_other_structures_are_an_error_beside_what_is_not_an_array(grads: Any) -> None:
    params = {"f": jax.nn.relu, "layer": {"w": jnp.ones(1)}}
    tx = jopt.adamw(0.1)
    with pytest.raises(ValueError, match="updates and params have different struct"):
        tx.update(grads, tx.init(grads), params)


def test_a_norm_names_the_leaf_that_is_not_an_array() -> None:
    with pytest.raises(TypeError, match="leaf 'a/f' is <function "):
        jopt.tree.norm({"a": {"f": update}, "b": jnp.ones(2)})
