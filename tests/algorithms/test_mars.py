"""MARS-AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import chex
import numpy as np

import jopt
from tests.algorithms.runs import random_tree, updates_and_state
from tests.laws.case import Case, core_of, transform
from tests.parity.row import pytorch_optimizer
from tests.transforms.test_mars_correction import mars_corrected
from tests.twins.base import Array, EpsMode, Scalar, at, denominator, double, steps


def mars_adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.95,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    gamma: Scalar = 0.025,
    max_norm: Scalar | None = 1.0,
    matrices_only: bool = False,
    weight_decay: Scalar = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Yuan et al., 2024, "MARS", algorithm 2, with the gradient of the batch before."""
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    before = np.zeros_like(p)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        c = g
        if p.ndim == 2 or not matrices_only:
            c = mars_corrected(g, before, at(gamma, t), beta1, max_norm, t)
        before = g
        m = beta1 * m + (1 - beta1) * c
        v = beta2 * v + (1 - beta2) * np.abs(c) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * (m_hat / root + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("mars_adamw"),
    Case("mars_adamw", {"matrices_only": True, "max_norm": None, "gamma": 0.1}),
    transform("scale_by_mars", core_of(mars_adamw)),
]

# Many of its optimizers add 1e-15 to the second moment, and eps to the root before the
# bias correction.
PO = "eps_root=1e-15, eps_mode='before'"
ROWS = (
    pytorch_optimizer(
        "mars-adamw",
        "MARS(0.01, weight_decay=0.1, optimize_1d=True)",
        f"mars_adamw(0.01, weight_decay=0.1, {PO})",
    ),
    pytorch_optimizer(
        "mars-adamw-schedule",
        "MARS(0.05, (0.9, 0.95), gamma=0.1, optimize_1d=True)",
        f"mars_adamw(DECAY, 0.9, 0.95, gamma=0.1, {PO})",
    ),
    pytorch_optimizer(
        "mars-adamw-matrices-only",
        "MARS(0.01, (0.9, 0.95), lr_1d=0.01, weight_decay_1d=0.0)",
        f"mars_adamw(0.01, 0.9, 0.95, matrices_only=True, {PO})",
    ),
)


def test_mars_keeps_gradients_of_the_leaves_it_corrects_only() -> None:
    params, grads = random_tree()
    for tx in (
        jopt.scale_by_mars(matrices_only=True),
        jopt.scale_by_mars_lion(matrices_only=True),
        jopt.mars_correction(mask=lambda path, p: p.ndim == 2),
    ):
        _, state = updates_and_state(tx, params, grads)
        assert state.previous_gradient["b"] is None
        chex.assert_trees_all_close(state.previous_gradient["w"], grads[-1]["w"])
    plain, _ = updates_and_state(jopt.scale_by_adam(0.95, 0.99), params, grads)
    mars, _ = updates_and_state(jopt.scale_by_mars(matrices_only=True), params, grads)
    chex.assert_trees_all_close([u["b"] for u in mars], [u["b"] for u in plain])


def test_mars_adamw_is_the_correction_before_adamw() -> None:
    params, grads = random_tree()
    for fused, adam in (
        (jopt.mars_adamw(0.1, 0.9, 0.95), jopt.adam(0.1, 0.9, 0.95)),
        (jopt.mars_lion(0.1, 0.9), jopt.lion(0.1, 0.9, 0.9, weight_decay=0.0)),
    ):
        chained = jopt.chain(jopt.mars_correction(b1=0.9), adam)
        chex.assert_trees_all_close(
            updates_and_state(fused, params, grads)[0],
            updates_and_state(chained, params, grads)[0],
            rtol=1e-5,
        )
