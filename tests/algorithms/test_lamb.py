"""LAMB."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Literal

import chex
import numpy as np

import jopt
from tests.algorithms.runs import random_matrices, train
from tests.laws.case import Case, transform
from tests.parity.row import keras, optax
from tests.twins.base import Array, Scalar, at, double, l2_norm, norm_ratio, steps


def lamb(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    decay: Literal["in_ratio", "before_step"] = "in_ratio",
) -> Iterator[Array]:
    """You et al., 2020, "Large batch optimization for deep learning", algorithm 2.

    "before_step" is Keras's: the parameters are decayed first, and then seen so.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        lr, wd, beta1, beta2 = (at(x, t) for x in (learning_rate, weight_decay, b1, b2))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        root = np.sqrt(v / (1 - beta2**t) + at(eps_root, t)) + at(eps, t)
        u = m / (1 - beta1**t) / root
        if decay == "in_ratio":
            u = u + wd * p
        else:
            p = p - lr * wd * p
        p = p - lr * norm_ratio(p, u, l2_norm(u)) * u
        yield p


def scale_by_decayed_trust_ratio(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """The end of Keras's Lamb."""
    p = double(p)
    for t, g in steps(grads):
        lr = at(learning_rate, t)
        q = p - lr * at(weight_decay, t) * p
        yield q - lr * norm_ratio(q, g, l2_norm(g)) * g - p


CASES = [
    Case("lamb"),
    Case("lamb", {"weight_decay": 0.1, "eps": 1e-7, "decay": "before_step"}),
    transform("scale_by_decayed_trust_ratio", learning_rate=0.1, weight_decay=0.1),
]

KERNEL_ONLY = "{'kernel': True, 'bias': False}"
COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    keras("lamb", "Lamb(0.01)", "lamb(0.01, eps=1e-7)"),
    keras(
        "lamb-weight-decay",
        "Lamb(0.01, weight_decay=0.1)",
        "lamb(0.01, eps=1e-7, weight_decay=0.1, decay='before_step')",
    ),
    keras(
        "lamb-weight-decay-schedule",
        "Lamb(DECAY, beta_1=0.8, beta_2=0.95, weight_decay=0.5)",
        "lamb(DECAY, 0.8, 0.95, 1e-7, weight_decay=0.5, decay='before_step')",
    ),
    optax("lamb", "lamb(0.01)"),
    optax("lamb-decay", f"lamb({COSINE}, 0.8, 0.95, weight_decay=0.1)"),
    optax("lamb-mask", f"lamb(0.01, weight_decay=0.1, mask={KERNEL_ONLY})"),
)


def test_lamb_before_the_step_with_a_partition_decays_some_leaves() -> None:
    w, grads = random_matrices(3)
    params = {"bias": w, "kernel": w}
    make = functools.partial(jopt.lamb, 0.1, decay="before_step")
    tx = jopt.partition(
        {"kernel": make(weight_decay=0.5), "bias": make()}, lambda path, _: path
    )
    found, _ = train(tx, params, [{"bias": g, "kernel": g} for g in grads])
    chex.assert_trees_all_equal(found["bias"], train(make(), w, grads)[0])
    decayed = train(make(weight_decay=0.5), w, grads)[0]
    chex.assert_trees_all_equal(found["kernel"], decayed)
