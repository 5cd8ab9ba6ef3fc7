"""Proximal weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import updates_of
from tests.laws.case import transform
from tests.twins.base import Array, Scalar, at, double, steps


def proximal_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zhuang et al., 2022, "Understanding AdamW through proximal methods".

    The new parameters minimize ``lr * weight_decay * |x|**2 + |x - (p - lr * g)|**2``.
    """
    p = double(p)
    for t, g in steps(grads):
        lr = at(learning_rate, t)
        yield (p - lr * g) / (1 + lr * at(weight_decay, t)) - p


CASES = [
    transform("proximal_decay", learning_rate=0.2, weight_decay=0.1),
]


def test_a_proximal_decay_never_overshoots() -> None:
    params = jnp.array([4.0, -2.0])
    tx = jopt.proximal_decay(1.0, weight_decay=1e3)
    (update,) = updates_of(tx, [jnp.zeros(2)], params)
    np.testing.assert_allclose(params + update, params / 1001, rtol=1e-4)
