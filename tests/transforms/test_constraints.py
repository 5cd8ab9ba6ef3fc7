"""Parameters that stay nonnegative."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Array, double, steps


def keep_params_nonnegative(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """The projection onto the nonnegative numbers."""
    p = double(p)
    for _, g in steps(grads):
        yield np.maximum(p + g, 0.0) - p


CASES = [
    Case(
        "keep_params_nonnegative",
        learning_rate=None,
        complex_leaves=False,
        moves_without_gradient=True,
    ),
]

ROWS = (
    optax("keep-params-nonnegative", "chain(sgd(0.05), keep_params_nonnegative())"),
)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("grad_dtype", ["bfloat16", "float16", "float32"])
def test_no_parameter_ends_below_zero_in_any_dtype(dtype: str, grad_dtype: str) -> None:
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.uniform(0, 1, 1000), dtype)
    grads = -params.astype(grad_dtype) * jnp.asarray(
        rng.choice([0.999, 1, 2], 1000), grad_dtype
    )
    tx = jopt.keep_params_nonnegative()
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    assert updates.dtype == grad_dtype
    after = jopt.apply_updates(params, updates)
    assert bool(jnp.all(after >= 0))
    assert bool(jnp.all(after <= 0.01))
