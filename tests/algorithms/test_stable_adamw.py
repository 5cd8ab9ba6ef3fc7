"""StableAdamW."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import chex
import jax
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import random_tree, updates_and_state
from tests.laws.case import Case, core_of, transform
from tests.parity.row import pytorch_optimizer, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def stable_adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 1e-2,
) -> Iterator[Array]:
    """Wortsman et al., 2023, "Stable and low-precision training", algorithm 2.

    Its beta_hat are Adam's bias corrections in another form.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        rms = np.sqrt(np.mean(np.abs(g) ** 2 / np.maximum(v_hat, at(eps, t) ** 2)))
        lr = at(learning_rate, t) / max(1.0, rms)
        p = (
            p
            - lr * at(weight_decay, t) * p
            - lr * m_hat / (np.sqrt(v_hat) + at(eps, t))
        )
        yield p


CASES = [
    Case("stable_adamw", {"weight_decay": 0.01, "b2": 0.9}),
    transform("scale_by_stable_adamw", core_of(stable_adamw, weight_decay=0.0)),
]

optimi = partial(torch_like, "optimi", package="torch-optimi")
ROWS = (
    optimi(
        "stable-adamw",
        "StableAdamW(0.01, weight_decay=0.1)",
        "stable_adamw(0.01, weight_decay=0.1)",
    ),
    optimi(
        "stable-adamw-schedule",
        "StableAdamW(0.05, (0.8, 0.95), eps=1e-8)",
        "stable_adamw(DECAY, 0.8, 0.95, 1e-8)",
    ),
    pytorch_optimizer(
        "stable-adamw",
        "StableAdamW(0.05, weight_decay=0.1)",
        "stable_adamw(DECAY, eps=1e-8, weight_decay=0.1)",
    ),
)


def test_the_mask_of_stable_adamw_is_about_its_decay_only() -> None:
    params, grads = random_tree()
    plain, _ = updates_and_state(
        jopt.stable_adamw(0.1, weight_decay=0.0), params, grads
    )
    decayed, _ = updates_and_state(
        jopt.stable_adamw(0.1, weight_decay=0.3), params, grads
    )
    masked, state = updates_and_state(
        jopt.stable_adamw(0.1, weight_decay=0.3, mask="w"), params, grads
    )
    for found, without, full in zip(masked, plain, decayed, strict=True):
        chex.assert_trees_all_close(found["b"], without["b"])
        chex.assert_trees_all_close(found["w"], full["w"])
    assert list(state) == ["scale_by_stable_adamw", "scale_by_learning_rate"]
    tx = jopt.stable_adamw(0.1, weight_decay=jopt.tunable(0.3), mask="w")
    state = jopt.set_hyperparams(tx, tx.init(params), weight_decay=0.0)
    chex.assert_trees_all_close(tx.update(grads[0], state, params)[0], plain[0])
    with pytest.raises(ValueError, match="matches no leaf"):
        jopt.stable_adamw(0.1, mask="kernel").init(params)


def test_stable_adamw_is_adamw_until_a_gradient_exceeds_its_second_moment() -> None:
    params, grads = random_tree()
    grads[4] = jax.tree.map(lambda g: 1e3 * g, grads[4])
    options: dict[str, Any] = {"b2": 0.99, "eps": 1e-6, "weight_decay": 0.1}
    adamw, _ = updates_and_state(jopt.adamw(0.1, **options), params, grads)
    stable, _ = updates_and_state(jopt.stable_adamw(0.1, **options), params, grads)
    norms = [float(jopt.tree.norm(u)) for u in adamw]
    found = [float(jopt.tree.norm(u)) for u in stable]
    assert found[4] < 0.5 * norms[4]
    assert found[5] == pytest.approx(norms[5], rel=1e-6)
