"""Kernels as XLA:CPU gets them return the numbers of the kernels as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.core import cpu_kernels
from jopt.core.fused import fused_update
from tests.catalogue import ONCE, Case


# A transformation without a state has one output, and no order.
STATEFUL = [case for case in ONCE if case.is_optimizer]


@pytest.fixture(autouse=True, scope="module")
def every_leaf() -> Iterator[None]:
    """Arrange the kernels of small leaves too, on the eight devices of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_kernels, "helps", lambda g: g.size > 1)
        jax.clear_caches()
        yield
    jax.clear_caches()


def as_it_is(g: Any) -> bool:
    return False


def results(case: Case) -> Any:
    """A second step, plain and fused, where it is taken and where it is skipped."""
    params, grads = jax.tree.map(jnp.float32, case.draw(steps=2))
    tx = case.make()
    extra: Any = {"value": jnp.float32(2.0)} if case.needs_value else {}

    def run(params, grads, take):
        _, state = tx.update(grads[0], tx.init(params), params, **extra)
        trees = grads[1], state, params, extra
        return [
            (params, state),
            tx.update(*trees[:3], **extra),
            fused_update(tx, *trees, take=take, adds=True),
        ]

    both = jax.jit(run)(params, grads, True), jax.jit(run)(params, grads, False)
    return jax.tree.map(np.asarray, both)


@pytest.mark.parametrize("case", STATEFUL, ids=lambda case: case.id)
def test_the_numbers_are_those_of_the_kernel_as_it_is(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, skipped = results(case)
    with monkeypatch.context() as patch:
        patch.setattr(cpu_kernels, "helps", as_it_is)
        jax.clear_caches()
        expected, _ = results(case)
        jax.clear_caches()
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-12),
        taken,
        expected,
    )
    before, _, after = skipped
    jax.tree.map(np.testing.assert_array_equal, after, before)
