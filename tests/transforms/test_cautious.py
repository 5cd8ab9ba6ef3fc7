"""Cautious updates and gradient signs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from tests.algorithms.runs import random_tree, updates_and_state
from tests.algorithms.test_adam import adam
from tests.algorithms.test_sgd import sgd
from tests.laws.case import core_of, transform
from tests.parity.row import pytorch_optimizer
from tests.twins.base import Array, double, phase


def cautious(
    p: Array,
    grads: Iterable[Array],
    *,
    inner: Callable[..., Iterator[Array]],
    normalizer: str = "mean",
    descent: bool = False,
) -> Iterator[Array]:
    """Liang et al., 2024, "Cautious optimizers", algorithm 1 and the authors' code."""
    kept_grads = [double(g) for g in grads]
    for g, u in zip(kept_grads, inner(p, kept_grads), strict=True):
        product = np.real((-u if descent else u) * np.conj(g))
        mask = (product > 0).astype(float)
        if normalizer == "mean":
            mask = mask / max(mask.mean(), 1e-3)
        elif normalizer == "count":
            mask = mask * (mask.size / (mask.sum() + 1))
        yield u * mask


def gradient_sign(
    p: Array,
    grads: Iterable[Array],
    *,
    inner: Callable[..., Iterator[Array]],
    descent: bool = False,
) -> Iterator[Array]:
    """Cao, Li & Song, 2024, "Grams", equation 3."""
    kept_grads = [double(g) for g in grads]
    for g, u in zip(kept_grads, inner(p, kept_grads), strict=True):
        yield (-1 if descent else 1) * phase(g) * np.abs(u)


def sgd_updates(p, grads):
    """What ``sgd(0.1, momentum=0.9)`` adds to parameters that stay."""
    return (-0.1 * u for u in core_of(sgd, momentum=0.9)(p, grads))


def around(gate, updates, **fixed):
    """The twin of a wrapper, with the twin of what is inside."""

    def twin(p, grads, *, inner, **options):
        return gate(p, grads, inner=updates, **fixed, **options)

    return twin


CASES = [
    transform(
        "cautious",
        around(cautious, core_of(adam)),
        inner=jopt.scale_by_adam(),
    ),
    transform(
        "cautious",
        around(cautious, sgd_updates, descent=True),
        inner=jopt.sgd(0.1, momentum=0.9),
        normalizer="count",
    ),
    transform(
        "gradient_sign",
        around(gradient_sign, sgd_updates, descent=True),
        inner=jopt.sgd(0.1, momentum=0.9),
    ),
]

ROWS = (
    pytorch_optimizer(
        "lion-cautious",
        "Lion(0.05, weight_decay=0.1, cautious=True)",
        "chain(cautious(scale_by_lion(), 'count'), add_decayed_weights(0.1), "
        "scale_by_learning_rate(DECAY))",
    ),
)


@pytest.mark.parametrize(
    ("inner", "sign"),
    [
        (jopt.scale_by_adam(), 1),
        (jopt.chain(jopt.scale_by_adam(), jopt.scale(2.0)), 1),
        (jopt.adam(0.1), -1),
        (jopt.lion(jopt.linear_schedule(0.1, 0.0, 10)), -1),
        (jopt.masked(jopt.sgd(0.1, momentum=0.9), "w"), -1),
    ],
    ids=repr,
)
def test_what_cautious_keeps_goes_the_gradients_way(inner: Any, sign: int) -> None:
    params, grads = random_tree()
    plain, _ = updates_and_state(inner, params, grads)
    kept, _ = updates_and_state(jopt.cautious(inner, "none"), params, grads)
    turned, _ = updates_and_state(jopt.gradient_sign(inner), params, grads)
    dropped = 0
    for g, u, k, s in zip(grads, plain, kept, turned, strict=True):
        along = g["w"] * u["w"] * sign > 0
        chex.assert_trees_all_equal(k["w"], jnp.where(along, u["w"], 0))
        chex.assert_trees_all_equal(s["w"], sign * jnp.sign(g["w"]) * jnp.abs(u["w"]))
        dropped += int(jnp.sum(~along))
    assert dropped > 0


def test_cautious_can_be_told_that_a_foreign_optimizer_descends() -> None:
    params, grads = random_tree()
    ours, _ = updates_and_state(
        jopt.cautious(jopt.sgd(0.1, momentum=0.9)), params, grads
    )
    theirs = jopt.cautious(optax.sgd(0.1, momentum=0.9), descent=True)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        found, _ = updates_and_state(theirs, params, grads)
    chex.assert_trees_all_close(found, ours, rtol=1e-5)


def test_the_state_and_the_hyperparameters_of_cautious_are_those_inside() -> None:
    params, grads = random_tree()
    rate = jopt.linear_schedule(0.1, 0.0, 10)
    core = jopt.scale_by_adam(b1=jopt.tunable(0.9))
    for inner in (core, jopt.chain(core, jopt.scale_by_learning_rate(rate))):
        tx = jopt.cautious(inner)
        assert jax.tree.structure(tx.init(params)) == jax.tree.structure(
            inner.init(params)
        )
        outer = jopt.chain(jopt.clip(1.0), caution=tx)
        state = jopt.set_hyperparams(outer, outer.init(params), b1=0.0)
        assert float(jopt.hyperparams(state)["b1"]) == 0.0
        with pytest.raises(ValueError, match="b1"):
            jopt.set_hyperparams(outer, state, b1=1.5)
        updates, _ = outer.update(grads[0], state, params)
        assert all(jnp.all(u != 0) for u in jax.tree.leaves(updates))
    with pytest.raises(ValueError, match="is scheduled by"):
        jopt.set_hyperparams(outer, state, learning_rate=0.3)


def test_around_a_direction_the_decay_is_not_masked_and_around_all_it_is() -> None:
    params = jnp.array([1.0, -1.0])
    grads = jnp.zeros(2)
    decay = (jopt.add_decayed_weights(0.5), jopt.scale_by_learning_rate(0.1))
    within = jopt.chain(jopt.cautious(jopt.scale_by_adam()), *decay)
    around = jopt.cautious(jopt.chain(jopt.scale_by_adam(), *decay))
    assert updates_and_state(within, params, [grads])[0][0].tolist() == pytest.approx(
        [-0.05, 0.05]
    )
    assert updates_and_state(around, params, [grads])[0][0].tolist() == [0.0, 0.0]


def test_a_leaf_that_is_left_out_inside_is_not_masked() -> None:
    params, grads = random_tree()
    tx = jopt.cautious(jopt.add_decayed_weights(0.1, mask="w"))
    updates, _ = updates_and_state(tx, params, grads)
    chex.assert_trees_all_equal(updates[0]["b"], grads[0]["b"])
