"""Kernels as XLA:CPU gets them return the numbers of the kernels as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core import cpu_kernels, kernels
from jopt.core.fused import fused_update
from tests.catalogue import ONCE, Case


# A transformation without a state has one output, and no order.
STATEFUL = [case for case in ONCE if case.is_optimizer]


@pytest.fixture(autouse=True, scope="module")
def every_leaf() -> Iterator[None]:
    """Arrange the kernels of small leaves too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_kernels, "LEAST_SIZE", 2)
        kernels._kernel.cache_clear()
        yield
    kernels._kernel.cache_clear()


def results(case: Case) -> Any:
    """A second step, plain and fused, where it is taken and where it is skipped."""
    params, grads = jax.tree.map(jnp.float32, case.draw(steps=2))
    params, *grads = ({"kernel": tree["kernel"]} for tree in (params, *grads))
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


def close(x: Any, y: Any) -> None:
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("case", STATEFUL, ids=lambda case: case.id)
def test_the_numbers_are_those_of_the_kernel_as_it_is(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, skipped = results(case)
    with monkeypatch.context() as patch:
        patch.setattr(cpu_kernels, "LEAST_SIZE", 2**30)
        kernels._kernel.cache_clear()
        expected, _ = results(case)
        kernels._kernel.cache_clear()
    with jopt.native_kernels():
        in_c, skipped_in_c = results(case)
    for numbers, kept in ((taken, skipped), (in_c, skipped_in_c)):
        jax.tree.map(close, numbers, expected)
        # A step that is not taken changes nothing.
        jax.tree.map(np.testing.assert_array_equal, kept[2], kept[0])
