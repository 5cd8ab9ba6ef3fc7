"""Transformations for some of the leaves."""

from __future__ import annotations

from typing import Any

import chex
import jax.numpy as jnp
import pytest

import jopt
from tests.algorithms.test_adam import adam
from tests.laws.case import core_of, transform
from tests.laws.problem import as_dtype, draw, trajectory
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


def test_a_label_that_is_no_string_is_an_error() -> None:
    tx = jopt.partition({"adam": jopt.adam(0.1)}, lambda path, leaf: 3)
    with pytest.raises(TypeError, match="a label is a string, got 3 for leaf 'bias'"):
        tx.init(as_dtype(PARAMS, jnp.float32))
