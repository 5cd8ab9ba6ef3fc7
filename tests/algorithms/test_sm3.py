"""SM3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np
import optax as real_optax
import pytest

import jopt
from tests.algorithms.runs import assert_follows, common_direction, floats
from tests.laws.case import Case, core_of
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def sm3(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar | None = 0.9,
    b2: Scalar = 1.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Anil et al., 2019, "Memory-efficient adaptive optimization", algorithm SM3-II.

    The cover of a tensor: for every axis and every index of it, the slice there.
    """
    p = double(p)
    cover = [
        (axis, index) for axis, size in enumerate(p.shape) for index in range(size)
    ]
    accumulators = dict.fromkeys(cover, 0.0)
    alone = 0.0  # of a number without axes
    m = np.zeros_like(p)
    for t, g in steps(grads):
        decay = at(b2, t)
        new = 1.0 if decay == 1 else 1 - decay
        v = np.zeros_like(p)
        for i in np.ndindex(p.shape):
            least = min([accumulators[axis, i[axis]] for axis in range(p.ndim)] or [0])
            v[i] = decay * (least if p.ndim else alone) + new * g[i] ** 2
        for axis, index in cover:
            accumulators[axis, index] = np.max(np.take(v, index, axis), initial=0.0)
        alone = v
        u = np.zeros_like(p)
        u[v > 0] = g[v > 0] / np.sqrt(v[v > 0] + at(eps, t))
        if momentum is not None:
            u = m = at(momentum, t) * m + (1 - at(momentum, t)) * u
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def _sm3_updates(p, grads, *, b1, **options):
    return core_of(sm3, momentum=b1)(p, grads, **options)


CASES = [
    Case("sm3", complex_leaves=False, rate_for_descent=0.3),
    Case("sm3", {"momentum": None, "b2": 0.9}, complex_leaves=False),
    Case("sm3", {"weight_decay": 0.01}, complex_leaves=False, rate_for_descent=0.3),
    Case(
        "scale_by_sm3",
        {"b1": 0.5},
        None,
        _sm3_updates,
        complex_leaves=False,
        part=True,
    ),
]

ROWS = (
    optax("sm3", "sm3(0.05)"),
    optax("sm3-momentum", "sm3(0.05, 0.5)"),
    optax("sm3-decay", "chain(scale_by_sm3(0.9, 0.9, 1e-6), scale(-0.05))"),
    torch_like(
        "pytorch_optimizer",
        "sm3",
        "SM3(lr=0.05)",
        "sm3(0.05, None, eps=1e-30)",
        package="pytorch-optimizer",
    ),
    torch_like(
        "pytorch_optimizer",
        "sm3-schedule",
        "SM3(lr=0.05, momentum=0.9, eps=1e-8)",
        "sm3(DECAY)",
        package="pytorch-optimizer",
    ),
)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_sm3_has_an_accumulator_per_axis_also_where_there_is_none(
    shape: tuple[int, ...],
) -> None:
    p, grads = common_direction(shape)
    assert_follows(jopt.sm3(0.1), sm3(p, grads, learning_rate=0.1), p, grads)
    state = jopt.sm3(0.1, None).init(jnp.asarray(p, jnp.float32))
    assert floats(state) == max(sum(shape), 1) + 1
    if not shape:
        with pytest.raises(IndexError):
            theirs = real_optax.sm3(0.1)
            theirs.update(jnp.float32(1.0), theirs.init(jnp.float32(1.0)))
