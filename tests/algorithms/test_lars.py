"""LARS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import random_matrices, train
from tests.laws.case import Case, transform
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, l2_norm, norm_ratio, steps


def lars(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    norm: Literal["separate", "together"] = "separate",
) -> Iterator[Array]:
    """You, Gitman & Ginsburg, 2017, "Large batch training", algorithm 1.

    "together" divides by the norm of the gradient with the decay in it.
    """
    p = double(p)
    b = np.zeros_like(p)
    for t, g in steps(grads):
        lr, wd, mu = at(learning_rate, t), at(weight_decay, t), at(momentum, t)
        decayed = g + wd * p
        if norm == "separate":
            size = l2_norm(g) + wd * l2_norm(p) + at(eps, t)
            local = at(trust_coefficient, t) * norm_ratio(p, g, size)
            local = local if l2_norm(p) > 0 and l2_norm(g) > 0 else 1.0
        else:
            size = l2_norm(decayed) + at(eps, t)
            local = at(trust_coefficient, t) * norm_ratio(p, decayed, size)
            local = local if l2_norm(p) > 0 and l2_norm(decayed) > 0 else 1.0
        d = lr * local * decayed
        b = mu * b + d
        p = p - (d + mu * b if nesterov else b)
        yield p


def scale_by_lars(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar = 0.0,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
) -> Iterator[Array]:
    """You, Gitman & Ginsburg, 2017, "Large batch training", equation 6."""
    p = double(p)
    for t, g in steps(grads):
        wd, local = at(weight_decay, t), 1.0
        if l2_norm(p) > 0 and l2_norm(g) > 0:
            local = at(trust_coefficient, t) * l2_norm(p)
            local = local / (l2_norm(g) + wd * l2_norm(p) + at(eps, t))
        yield local * (g + wd * p)


CASES = [
    Case("lars", {"trust_coefficient": 0.1}),
    Case("lars", {"trust_coefficient": 0.1, "norm": "together", "nesterov": True}),
    transform("scale_by_lars", weight_decay=0.1, trust_coefficient=0.5),
]

KERNEL_ONLY = "{'kernel': True, 'bias': False}"
COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    torch_like(
        "pytorch_optimizer",
        "lars",
        "LARS(lr=0.05, momentum=0.9, weight_decay=0.1, trust_coefficient=0.1)",
        "lars(0.05, 0.1, 'kernel', 0.1, trust_ratio_mask='kernel')",
    ),
    torch_like(
        "pytorch_optimizer",
        "lars-nesterov",
        "LARS(lr=0.05, momentum=0.8, weight_decay=0.0, nesterov=True)",
        "lars(0.05, trust_ratio_mask='kernel', momentum=0.8, nesterov=True)",
    ),
    optax("lars", "lars(0.05)"),
    optax(
        "lars-together",
        f"lars({COSINE}, 0.1, trust_coefficient=0.1, eps=0.01, nesterov=True)",
        f"lars({COSINE}, 0.1, trust_coefficient=0.1, eps=0.01, nesterov=True,"
        " norm='together')",
    ),
    optax(
        "lars-masks",
        f"lars(0.05, 0.1, {KERNEL_ONLY}, 0.1,"
        " trust_ratio_mask={'kernel': False, 'bias': True})",
        f"lars(0.05, 0.1, {KERNEL_ONLY}, 0.1,"
        " trust_ratio_mask={'kernel': False, 'bias': True})",
    ),
)


@pytest.mark.parametrize("norm", ["separate", "together"])
def test_lars_decays_and_scales_the_leaves_of_two_masks(norm: Any) -> None:
    params, grads = random_matrices(3)
    names = {"dw": (True, True), "d": (True, False), "w": (False, True), "0": (0, 0)}
    tx = jopt.lars(
        0.1, 0.2, "^d", 0.5, trust_ratio_mask=lambda path, x: "w" in path, norm=norm
    )
    found, _ = train(
        tx, dict.fromkeys(names, params), [dict.fromkeys(names, g) for g in grads]
    )
    for name, (decayed, scaled) in names.items():
        if scaled:
            alone = jopt.lars(0.1, 0.2 if decayed else 0.0, True, 0.5, norm=norm)
        else:
            decay = jopt.add_decayed_weights(0.2 if decayed else 0.0)
            alone = jopt.chain(decay, jopt.sgd(0.1, 0.9))
        expected, _ = train(alone, params, grads)
        chex.assert_trees_all_close(found[name], expected, rtol=1e-6)


def test_an_optimizer_with_masks_is_compiled_once_however_often_it_is_made() -> None:
    params, grads = (
        {"a": jnp.ones(2), "b": jnp.ones(3)},
        {"a": jnp.ones(2), "b": jnp.ones(3)},
    )

    def step() -> None:
        tx = jopt.lars(0.1, 0.2, {"a": True, "b": False})
        tx.update(grads, tx.init(params), params)

    step()
    with jax.no_tracing():
        step()
