"""Factored second moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import assert_follows, common_direction
from tests.algorithms.test_adafactor import adafactor
from tests.benchmarks.recipes import temporary_bytes
from tests.laws.case import transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, double


def scale_by_factored_rms(
    p: Array,
    grads: Iterable[Array],
    *,
    epsilon: Scalar = 1e-30,
    step_offset: int = 0,
    clipping_threshold: Scalar | None = None,
    **options: Any,
) -> Iterator[Array]:
    """Adafactor's direction, as `adafactor` takes it from a parameter of zeros."""
    before = np.zeros_like(double(p))
    for after in adafactor(
        before,
        grads,
        learning_rate=-1.0,
        eps=epsilon,
        decay_offset=step_offset,
        clipping_threshold=clipping_threshold,
        multiply_by_parameter_scale=False,
        **options,
    ):
        yield after - before
        before = after


CASES = [
    transform("scale_by_factored_rms", min_dim_size_to_factor=3),
]

ROWS = (
    optax(
        "factored-rms",
        "chain(scale_by_factored_rms(True, 0.7, 0, 2), scale(-0.01))",
        tol32=1e-5,
        tol64=1e-6,
    ),
)


def test_the_decay_of_a_factored_moment_can_be_another() -> None:
    p, grads = common_direction((3, 4))
    options = {"decay_rate_fn": lambda t, c: 0.5 * (1 - (t + 1) ** -c)}
    tx = jopt.chain(
        jopt.scale_by_factored_rms(min_dim_size_to_factor=1, **options),
        jopt.scale_by_learning_rate(0.1),
    )
    options |= {"multiply_by_parameter_scale": False, "clipping_threshold": None}
    twin = adafactor(p, grads, learning_rate=0.1, min_dim_size_to_factor=1, **options)
    assert_follows(tx, twin, p, grads)


def test_clipping_within_the_factored_moment_is_clipping_behind_it() -> None:
    p, grads = common_direction((3, 4))
    params = jnp.asarray(p, jnp.float32)
    within = jopt.scale_by_factored_rms(
        min_dim_size_to_factor=1, clipping_threshold=0.5
    )
    behind = jopt.chain(
        jopt.scale_by_factored_rms(min_dim_size_to_factor=1),
        jopt.clip_by_block_rms(0.5),
    )
    states = within.init(params), behind.init(params)
    for g in grads:
        g = jnp.asarray(g, jnp.float32)
        ours, own = within.update(g, states[0])
        theirs, other = behind.update(g, states[1])
        np.testing.assert_allclose(ours, theirs, 1e-6)
        states = own, other


@pytest.mark.parametrize("eps_mode", ["add", "clamp"])
def test_a_row_without_gradient_beside_a_huge_one_stays_at_rest(eps_mode: Any) -> None:
    tx = jopt.scale_by_factored_rms(
        min_dim_size_to_factor=1, clipping_threshold=1.0, eps_mode=eps_mode
    )
    grads = jnp.zeros((3, 4)).at[0, 0].set(1e15)
    state = tx.init(grads)
    for _ in range(3):
        updates, state = tx.update(grads, state)
        assert jnp.isfinite(updates).all()
        assert updates[0, 0] > 0 and jnp.sum(updates != 0) == 1


@pytest.mark.parametrize("shape", [(4096, 1024), (1024, 4096), (4, 1024, 1024)])
@pytest.mark.parametrize("eps_mode", ["add", "clamp"])
def test_no_array_of_the_gradients_size_is_written_beside_the_step(
    eps_mode: Any, shape: tuple[int, ...]
) -> None:
    tx = jopt.chain(
        jopt.scale_by_factored_rms(
            clipping_threshold=1.0, eps_mode=eps_mode, factored_axes="last"
        ),
        jopt.scale(-1.0),
    )
    p = jax.ShapeDtypeStruct(shape, jnp.float32)
    means = sum(x.size for x in jax.tree.leaves(jax.eval_shape(tx.init, p)))
    assert temporary_bytes(tx, p) <= 4 * 4 * means


def test_a_step_of_mixed_magnitudes_follows_the_paper() -> None:
    random = np.random.default_rng(0)
    g = random.normal(size=(48, 80)) * 10.0 ** random.uniform(-12, 12, (48, 1))
    tx = jopt.scale_by_factored_rms(min_dim_size_to_factor=1, clipping_threshold=1.0)
    p = jnp.asarray(g, jnp.float32)
    (u,) = scale_by_factored_rms(
        np.zeros_like(g), [g], clipping_threshold=1.0, min_dim_size_to_factor=1
    )
    np.testing.assert_allclose(tx.update(p, tx.init(p))[0], u, 2e-5)
