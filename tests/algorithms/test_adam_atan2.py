"""Adam-atan2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import random_tree, updates_and_state
from tests.laws.case import Case, core_of, transform
from tests.parity.row import torch_like
from tests.twins.base import Array, Scalar, at, double, phase, steps


def adam_atan2(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    a: Scalar = 1.27,
    b: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Everett et al., 2024, "Scaling exponents across parameterizations".

    A complex moment keeps its phase.
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
        u = at(a, t) * np.arctan2(np.abs(m_hat), at(b, t) * np.sqrt(v_hat))
        u = u * phase(m_hat)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    # Small, because an update does not depend on the size of the first gradient: its
    # derivative is 0 with a noise that is a multiple of the rate.
    Case("adam_atan2", {"weight_decay": 0.1}, learning_rate=1e-5),
    transform("scale_by_adam_atan2", core_of(adam_atan2), a=1e-5, b=0.5),
]

atan2 = partial(torch_like, "adam_atan2_pytorch", package="adam-atan2-pytorch")
ROWS = (
    atan2("adam-atan2", "AdamAtan2(0.01)", "adam_atan2(0.01)"),
    atan2(
        "adam-atan2-schedule-weight-decay",
        "AdamAtan2(0.05, (0.8, 0.95), weight_decay=0.1, a=1.0, b=2.0)",
        "adam_atan2(DECAY, 0.8, 0.95, a=1.0, b=2.0, weight_decay=0.1)",
    ),
    # The mask of the authors' AdamW, with decay behind it.
    atan2(
        "adam-atan2-cautious",
        "AdamAtan2(0.05, weight_decay=0.1, cautious_factor=0.0)",
        "chain(cautious(scale_by_adam_atan2()), add_decayed_weights(0.1), "
        "scale_by_learning_rate(DECAY))",
    ),
    # A mask around the whole step, without decay, is the same.
    atan2(
        "adam-atan2-cautious-optimizer",
        "AdamAtan2(0.05, cautious_factor=0.0)",
        "cautious(adam_atan2(DECAY))",
    ),
)


def test_adam_atan2_does_not_see_the_scale_of_the_gradients() -> None:
    params, grads = random_tree()
    small = jax.tree.map(lambda g: 1e-12 * g, grads)
    tx = jopt.scale_by_adam_atan2()
    chex.assert_trees_all_close(
        updates_and_state(tx, params, small)[0],
        updates_and_state(tx, params, grads)[0],
        rtol=1e-5,
    )
    largest = max(
        jnp.max(jnp.abs(u["w"])) for u in updates_and_state(tx, params, grads)[0]
    )
    assert largest <= 1.27 * np.pi / 2
