"""ADOPT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import updates_of
from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def adopt(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[int], float] = lambda n: n**0.25,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Taniguchi et al., 2024, "ADOPT", with the clipping of its authors' code.

    The first gradient is for ``v`` only.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        if t == 1:
            v = np.abs(g) ** 2
            yield p
            continue
        normed = g / np.maximum(np.sqrt(v), at(eps, t))
        if use_clipping:
            c = clip_value_fn(t - 1)
            normed = np.minimum(np.maximum(normed, -c), c)
        m = beta1 * m + (1 - beta1) * normed
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        u = beta1 * m + (1 - beta1) * normed if nesterov else m
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def skip_first(p: Array, grads: Iterable[Array], *, steps: int = 1) -> Iterator[Array]:
    """No paper: zero in the first steps."""
    for t, g in enumerate(grads, start=1):
        yield np.zeros_like(double(g)) if t <= steps else double(g)


CASES = [
    Case("adopt", complex_leaves=False),
    Case("adopt", {"weight_decay": 0.1, "use_clipping": False, "b2": 0.9}),
    Case(
        "scale_by_adopt",
        {"nesterov": True, "b2": 0.9},
        learning_rate=None,
        twin=core_of(adopt),
        complex_leaves=False,
    ),
    transform("skip_first", steps=2),
]

authors = partial(torch_like, "adopt", package="torch-adopt")
COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
    authors("adopt", "ADOPT(lr=0.01)", "adopt(0.01)"),
    authors(
        "adopt-betas",
        "ADOPT(lr=0.01, betas=(0.8, 0.9), eps=1e-5)",
        "adopt(0.01, 0.8, 0.9, 1e-5)",
    ),
    authors(
        "adopt-no-clipping",
        "ADOPT(lr=0.01, betas=(0.9, 0.9), clip_lambda=None)",
        "adopt(0.01, b2=0.9, use_clipping=False)",
    ),
    authors(
        "adopt-own-clipping",
        "ADOPT(lr=0.01, clip_lambda=lambda step: 0.1 * step)",
        "adopt(0.01, clip_value_fn=linear_schedule(0.0, 10.0, 100))",
    ),
    authors(
        "adopt-decoupled-schedule",
        "ADOPT(lr=0.05, weight_decay=0.1, decouple=True)",
        "adopt(DECAY, weight_decay=0.1)",
    ),
    authors(
        "adopt-l2",
        "ADOPT(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adopt(0.01))",
    ),
    optax("adopt", "adopt(0.01)"),
    optax("adopt-nesterov", f"adopt({COSINE}, 0.8, 0.9, 1e-5, nesterov=True)"),
    optax("adopt-no-clipping", "adopt(0.01, b2=0.9, use_clipping=False)"),
)


def test_adopts_clipping_is_a_function_that_may_be_a_schedule() -> None:
    with pytest.raises(TypeError, match=r"clip_value_fn must be a function.*got.*2\.0"):
        jopt.adopt(0.1, clip_value_fn=2.0)
    ramp = jopt.linear_schedule(0.0, 10.0, 20)
    tx = jopt.scale_by_adopt(b1=0.0, clip_value_fn=ramp)
    assert jopt.from_config(jopt.to_config(tx)) == tx
    grads = [jnp.array([1e-3]), jnp.array([1.0]), jnp.array([1.0])]
    found = updates_of(tx, grads, jnp.zeros(1))
    np.testing.assert_allclose(jnp.stack(found)[:, 0], [0.0, 0.5, 1.0])


def test_adopt_takes_complex_gradients_unless_it_clips() -> None:
    params = jnp.ones(2, jnp.complex64)
    with pytest.raises(TypeError, match="complex64"):
        jopt.adopt(0.1).init(params)
    tx = jopt.scale_by_adopt(b1=0.0, use_clipping=False)
    _, second = updates_of(tx, [params * 2, params * 1j], params)
    np.testing.assert_allclose(second, 0.5j * np.ones(2), rtol=1e-6)


def test_adopts_first_step_moves_nothing_and_decays_nothing() -> None:
    params = jnp.ones(2)
    first, second = updates_of(jopt.adopt(0.1, weight_decay=0.5), [params] * 2, params)
    chex.assert_trees_all_equal(first, jnp.zeros(2))
    np.testing.assert_allclose(second, -0.1 * (0.1 + 0.5), rtol=1e-6)
