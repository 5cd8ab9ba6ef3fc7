"""Transformations for some of the leaves."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax as real_optax
import pytest

import jopt
from jopt.testing.problem import as_dtype, draw, trajectory
from jopt.tree.paths import map_leaves
from tests.algorithms.test_adam import adam
from tests.laws.case import core_of, transform
from tests.parity.row import optax


PARAMS, GRADS = draw(steps=12)

CASES = [
    transform(
        "masked",
        lambda p, grads, **_: core_of(adam)(p, grads),
        inner=jopt.scale_by_adam(),
        mask=True,
    ),
    transform(
        "partition",
        lambda p, grads, **_: core_of(adam)(p, grads),
        transforms={"all": jopt.scale_by_adam()},
        param_labels="all",
    ),
    transform(
        "selective_transform",
        lambda p, grads, **_: core_of(adam)(p, grads),
        optimizer=jopt.scale_by_adam(),
        freeze_mask=False,
    ),
]

WITHOUT_ROW = {
    "multi_transform": "is partition",
}

ROWS = (
    optax(
        "partition",
        'partition({"a": sgd(0.1, 0.9), "b": adam(0.01)}, '
        '{"kernel": "a", "bias": "b"})',
    ),
    optax(
        "masked",
        'chain(masked(scale(2.0), {"kernel": True, "bias": False}), scale(-0.1))',
    ),
)


def test_each_group_gets_its_transformation_and_keeps_nothing_for_others() -> None:
    tx = jopt.partition(
        {"matrix": jopt.adam(0.1), "rest": jopt.sgd(0.5, 0.9)},
        lambda path, leaf: "matrix" if leaf.ndim == 2 else "rest",
    )
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS, jnp.float32)
    state = tx.init(params)
    assert state["matrix"]["scale_by_adam"].mu["bias"] is None
    assert state["rest"]["trace"].trace["kernel"] is None
    found = trajectory(tx, params, grads)

    def alone(tx: Any, *names: str) -> Any:
        return trajectory(
            tx, {n: params[n] for n in names}, [{n: g[n] for n in names} for g in grads]
        )

    expected = alone(jopt.adam(0.1), "kernel") | alone(
        jopt.sgd(0.5, 0.9), "bias", "scalar"
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_masked_leaves_pass_unchanged_and_a_missing_gradient_stays_missing() -> None:
    tx = jopt.masked(jopt.scale(2.0), "kernel|bias")
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS[1], jnp.float32)
    updates, _ = tx.update({**grads, "bias": None}, tx.init(params), params)
    assert updates["bias"] is None
    chex.assert_trees_all_equal(updates["scalar"], grads["scalar"])
    chex.assert_trees_all_equal(updates["kernel"], 2 * grads["kernel"])


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (
            lambda path, leaf: "adm",
            "leaf 'bias' has the label 'adm'.*Did you mean 'adam'",
        ),
        ({"kernel": "adam"}, "says nothing about leaf 'bias'"),
        ({"bias": "adam", "kernel": "adam", "scalar": "adam", "x": "adam"}, r"\['x'\]"),
    ],
)
def test_a_leaf_without_a_known_label_is_an_error(labels: Any, error: str) -> None:
    tx = jopt.partition({"adam": jopt.adam(0.1)}, labels)
    with pytest.raises(ValueError, match=error):
        tx.init(as_dtype(PARAMS, jnp.float32))


def test_what_cannot_be_a_label_is_an_error() -> None:
    tx = jopt.partition({"adam": jopt.adam(0.1)}, lambda path, leaf: 0.5)
    with pytest.raises(TypeError, match=r"a label is .*, got 0\.5 for leaf 'bias'"):
        tx.init(as_dtype(PARAMS, jnp.float32))


@pytest.mark.parametrize(
    "tx",
    [
        jopt.masked(jopt.sgd(1.0), "bias"),
        jopt.partition(
            {"sgd": jopt.sgd(1.0), "rest": jopt.identity()},
            {"bias": "sgd", "kernel": "rest", "scalar": "rest"},
        ),
    ],
    ids=str,
)
def test_parameters_that_nothing_inside_needs_may_be_left_out(tx: Any) -> None:
    grads = as_dtype(GRADS[0], jnp.float32)
    updates, _ = tx.update(grads, tx.init(as_dtype(PARAMS, jnp.float32)))
    chex.assert_trees_all_equal(updates, grads | {"bias": -grads["bias"]})


# Extra arguments that are trees like the parameters.


def follows(name: str) -> Any:
    """A transformation whose updates are the leaves of an extra argument."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return map_leaves(lambda u, x: x, updates=updates, extra=extra[name]), state

    return jopt.GradientTransformation(lambda params: (), update)


PARTS = {"b": jnp.ones(2), "w": jnp.ones((2, 2))}
WITH_FEWER_LEAVES = {
    "masked": lambda tx: jopt.masked(tx, "w"),
    "partition": lambda tx: jopt.partition(
        {"w": tx, "b": jopt.identity()}, lambda path, leaf: path
    ),
    "multi_transform": lambda tx: jopt.multi_transform(
        {"w": tx, "b": jopt.identity()}, {"w": "w", "b": "b"}
    ),
    "selective_transform": lambda tx: jopt.chain(
        jopt.selective_transform(tx, freeze_mask="b"), jopt.masked(_ones(), "b")
    ),
    "masked in masked": lambda tx: jopt.masked(jopt.masked(tx, "w"), "w|b"),
    "in a chain": lambda tx: jopt.masked(jopt.chain(jopt.identity(), tx), "w"),
    "in guards": lambda tx: jopt.masked(jopt.skip_nonfinite(tx), "w"),
}


def _ones() -> Any:
    return jopt.stateless(lambda updates, params: jax.tree.map(jnp.ones_like, updates))


@pytest.mark.parametrize("name", ["grad", "hessian"])
@pytest.mark.parametrize("around", WITH_FEWER_LEAVES.values(), ids=WITH_FEWER_LEAVES)
def test_an_extra_argument_like_the_params_is_masked_with_them(
    around: Any, name: str
) -> None:
    tx = around(follows(name))
    extra = {name: jax.tree.map(lambda p: 3 * p, PARTS), "value": jnp.float32(0.5)}
    updates, _ = jax.jit(tx.update)(PARTS, tx.init(PARTS), PARTS, **extra)
    chex.assert_trees_all_equal(updates, {"b": jnp.ones(2), "w": 3 * jnp.ones((2, 2))})


def test_an_argument_of_another_structure_passes_as_it_is() -> None:
    found = {}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        found.update(extra)
        return updates, state

    tx = jopt.masked(jopt.GradientTransformation(lambda params: (), update), False)
    extra = {"value": jnp.float32(2), "batch": [1, 2], "value_fn": jnp.sum}
    for params in (PARTS, jnp.ones(3)):
        tx.update(params, tx.init(params), params, grad=params, **extra)
        assert {n: found[n] for n in extra} == extra
        assert not jax.tree.leaves(found["grad"])

    # Beside a bare array, its shape tells what is like it; every loss is a scalar.
    for params, extra in ((jnp.ones(3), jnp.ones(2)), (jnp.ones(()), jnp.ones(()))):
        tx.update(params, tx.init(params), params, extra=extra)
        assert found["extra"] is extra


@pytest.mark.parametrize("mask", ["w", {"b": False, "w": True}])
def test_lbfgs_of_optax_on_some_leaves_is_that_of_optax(mask: Any) -> None:
    def loss(params: Any) -> Any:
        return jnp.sum((params["w"] @ params["b"] - 3.0) ** 2)

    def run(tx: Any) -> Any:
        params, state = PARTS, tx.init(PARTS)
        for _ in range(3):
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(
                grads, state, params, value=value, grad=grads, value_fn=loss_of_w
            )
            updates["b"] = jnp.zeros(2)
            params = jopt.apply_updates(params, updates)
        return params

    def loss_of_w(params: Any) -> Any:
        return loss({**PARTS, "w": params["w"]})

    theirs = real_optax.masked(
        real_optax.lbfgs(), {"b": False, "w": True}, mask_compatible_extra_args=True
    )
    found = run(jopt.masked(real_optax.lbfgs(), mask))
    chex.assert_trees_all_close(found, run(theirs), rtol=1e-6)
    assert jnp.abs(found["w"] - 1).max() > 0.1


# Frozen leaves of integers, such as the codes of a quantized layer.


QUANTIZED = {"codes": jnp.arange(4, dtype=jnp.int8), "w": jnp.ones(3)}
FROZEN = {
    "selective_transform": jopt.selective_transform(
        jopt.adamw(0.1), freeze_mask="codes"
    ),
    "freeze": jopt.chain(jopt.masked(jopt.adamw(0.1), "w"), jopt.freeze("codes")),
    "masked": jopt.masked(jopt.adamw(0.1), "w"),
    "partition": jopt.partition(
        {"train": jopt.adamw(0.1), "rest": jopt.set_to_zero()},
        {"codes": "rest", "w": "train"},
    ),
}


def quantized_loss(params: Any) -> Any:
    return jnp.sum(params["w"] ** 2) + jnp.sum(params["codes"].astype(jnp.float32))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("gradient", ["float0", "int8", "None"])
@pytest.mark.parametrize("tx", FROZEN.values(), ids=FROZEN)
def test_frozen_leaves_of_integers_do_not_move(
    tx: Any, gradient: str, jit: bool
) -> None:
    grads = jax.grad(quantized_loss, allow_int=True)(QUANTIZED)
    assert grads["codes"].dtype == jax.dtypes.float0
    if gradient != "float0":
        grads["codes"] = jnp.zeros(4, jnp.int8) if gradient == "int8" else None

    def step(grads: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return jopt.apply_updates(params, updates), state

    state = tx.init(QUANTIZED)
    new, new_state = (jax.jit(step) if jit else step)(grads, state, QUANTIZED)
    chex.assert_trees_all_equal_dtypes(new, QUANTIZED)
    chex.assert_trees_all_equal(new["codes"], QUANTIZED["codes"])
    alone = jopt.adamw(0.1)
    w, g = QUANTIZED["w"], grads["w"]
    expected, _ = jopt.step(alone, g, alone.init(w), w)
    chex.assert_trees_all_close(new["w"], expected, rtol=1e-6)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    stepped, _ = jopt.step(tx, grads, state, QUANTIZED)
    chex.assert_trees_all_close(stepped, new, rtol=1e-6)


def test_integers_that_are_not_frozen_are_an_error_by_name() -> None:
    tx = jopt.chain(jopt.adamw(0.1), jopt.freeze("codes"))
    with pytest.raises(TypeError, match="leaf 'codes' has dtype int8"):
        tx.init(QUANTIZED)
