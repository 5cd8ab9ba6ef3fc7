"""Adafactor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax as real_optax
import pytest

import jopt
from tests.algorithms.runs import assert_follows, common_direction, floats
from tests.laws.case import Case, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, Scalar, at, double, rms, steps


def adafactor(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: int = 0,
    decay_rate_fn: Callable[..., Any] | None = None,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    weight_decay_rate: Scalar = 0.0,
    eps: Scalar = 1e-30,
    factored: bool = True,
    relative_step: bool = False,
    min_scale: Scalar = 1e-3,
    factored_axes: Literal["largest", "last"] = "largest",
    eps_mode: Literal["add", "clamp"] = "add",
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", algorithms 4 and 5.

    "clamp" is torch's: the epsilon bounds the mean of the rows and the divisor.
    """
    p = double(p)
    axes = list(range(p.ndim))
    if factored_axes == "largest":
        axes.sort(key=lambda axis: p.shape[axis])
    factored = factored and p.ndim >= 2
    if factored:
        i, j = axes[-2:]
        factored = min(p.shape[i], p.shape[j]) >= min_dim_size_to_factor
    rows, columns, v = 0.0, 0.0, 0.0
    m = np.zeros_like(p)
    for t, g in steps(grads):
        since = max(t - decay_offset, 1)
        beta = 1 - since ** -at(decay_rate, t)
        if decay_rate_fn is not None:
            beta = decay_rate_fn(since - 1, at(decay_rate, t))
        epsilon = at(eps, t)
        squares = np.abs(g) ** 2
        if eps_mode == "add":
            squares = squares + epsilon
        if factored:
            rows = beta * rows + (1 - beta) * squares.mean(j, keepdims=True)
            columns = beta * columns + (1 - beta) * squares.mean(i, keepdims=True)
            whole = rows.mean(i, keepdims=True)
            if eps_mode == "clamp":
                whole = np.maximum(whole, epsilon)
            v_hat = rows * columns / whole
        else:
            v = v_hat = beta * v + (1 - beta) * squares
        root = np.sqrt(v_hat)
        if eps_mode == "clamp":
            root = np.maximum(root, epsilon)
        u = g / root
        if clipping_threshold is not None:
            u = u / max(1.0, rms(u) / at(clipping_threshold, t))
        rate = 0.01 if learning_rate is None else at(learning_rate, t)
        if learning_rate is None or relative_step:
            rate = min(rate, 1 / np.sqrt(t))
        u = rate * u
        if multiply_by_parameter_scale:
            u = max(at(min_scale, t), rms(p)) * u
        if momentum is not None:
            u = m = at(momentum, t) * m + (1 - at(momentum, t)) * u
        p = p - (u + at(weight_decay_rate, t) * p)
        yield p


def scale_by_relative_step(
    p: Array, grads: Iterable[Array], *, learning_rate: Scalar = 1e-2
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", section 7: the step size."""
    for t, g in steps(grads):
        yield -min(at(learning_rate, t), 1 / np.sqrt(t)) * g


CASES = [
    Case("adafactor", {"min_dim_size_to_factor": 2}),
    Case(
        "adafactor",
        {"momentum": 0.9, "weight_decay_rate": 1e-3, "decay_offset": 3, "eps": 1e-8},
    ),
    Case(
        "adafactor",
        {
            "min_dim_size_to_factor": 1,
            "eps": 1e-7,
            "eps_mode": "clamp",
            "factored_axes": "last",
            "relative_step": True,
        },
    ),
    transform("scale_by_relative_step", learning_rate=0.3),
]

KERAS_LIKE = "min_dim_size_to_factor=1, factored_axes='last', relative_step=True"
TORCH_LIKE = f"{KERAS_LIKE}, eps_mode='clamp'"
# optax computes the decay of Adafactor in float32 in any case.
OPTAX = {"tol64": 1e-7}
# Keras computes every mean in float32 in any case; and in float32 its default epsilon
# gives NaN for a column of zeros, so these have another.
KERAS = {"tol64": 5e-7}
ROWS = (
    optax("adafactor", "adafactor(0.05, 1)", **OPTAX),
    optax("adafactor-unfactored", "adafactor(0.05)", **OPTAX),
    optax("adafactor-decay-rate", "adafactor(0.05, 1, 0.5)", **OPTAX),
    # It also takes 1 - b from b, at the price of digits.
    optax(
        "adafactor-absolute",
        "adafactor(0.005, 1, 0.8, 0, False, None)",
        tol32=1e-5,
        tol64=1e-6,
    ),
    optax("adafactor-momentum", "adafactor(0.05, 1, momentum=0.9)", **OPTAX),
    optax(
        "adafactor-weight-decay", "adafactor(0.05, 1, weight_decay_rate=0.01)", **OPTAX
    ),
    optax(
        "adafactor-schedule",
        "adafactor(linear_schedule(0.05, 0.0, 30), 1, eps=1e-8)",
        **OPTAX,
    ),
    torch("adafactor", "Adafactor(0.05)", f"adafactor(0.05, {TORCH_LIKE}, eps=None)"),
    torch(
        "adafactor-relative-step",
        "Adafactor(0.5)",
        f"adafactor(0.5, {TORCH_LIKE}, eps=None)",
    ),
    torch(
        "adafactor-options",
        "Adafactor(0.05, -0.6, (1e-6, 1e-2), 2.0, weight_decay=0.1)",
        f"adafactor(0.05, {TORCH_LIKE}, decay_rate=0.6, eps=1e-6, min_scale=1e-2, "
        "clipping_threshold=2.0, weight_decay_rate=0.05 * 0.1)",
    ),
    torch(
        "adafactor-schedule",
        "Adafactor(0.05)",
        f"adafactor(DECAY, {TORCH_LIKE}, eps=None)",
    ),
    keras(
        "adafactor",
        "Adafactor(0.05, epsilon_1=1e-8)",
        f"adafactor(0.05, {KERAS_LIKE}, eps=1e-8)",
        **KERAS,
    ),
    keras(
        "adafactor-schedule",
        "Adafactor(DECAY, epsilon_1=1e-8)",
        f"adafactor(DECAY, {KERAS_LIKE}, eps=1e-8)",
        **KERAS,
    ),
    keras(
        "adafactor-options",
        "Adafactor(0.3, -0.6, 1e-8, 1e-2, 2.0)",
        f"adafactor(0.3, {KERAS_LIKE}, decay_rate=0.6, eps=1e-8, min_scale=1e-2, "
        "clipping_threshold=2.0)",
        **KERAS,
    ),
    # Keras scales by the decayed parameter, p (1 - 0.05 * 0.1).
    keras(
        "adafactor-weight-decay",
        "Adafactor(0.05, epsilon_1=1e-8, weight_decay=0.1)",
        f"adafactor(0.05 * 0.995, {KERAS_LIKE}, eps=1e-8, min_scale=1e-3 / 0.995, "
        "weight_decay_rate=0.005)",
        **KERAS,
    ),
)


def test_adafactor_keeps_a_number_per_row_and_column_only() -> None:
    state = jopt.adafactor(1e-2).init(jnp.zeros((256, 512)))
    assert floats(state) == 256 + 512 + 1  # and the learning rate
    state = jopt.adafactor(1e-2).init(jnp.zeros((127, 512)))
    assert floats(state) == 127 * 512 + 1


@pytest.mark.parametrize("axes", ["largest", "last"])
@pytest.mark.parametrize("shape", [(5, 6, 3), (2, 4, 4), (3, 2, 1, 7)])
def test_adafactor_factors_the_largest_or_the_last_axes(
    shape: tuple[int, ...], axes: Any
) -> None:
    p, grads = common_direction(shape)
    options = {"min_dim_size_to_factor": 1, "factored_axes": axes}
    twin = adafactor(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.adafactor(0.1, **options), twin, p, grads)


def test_adafactor_without_a_learning_rate_takes_the_paper_s_steps() -> None:
    p, grads = common_direction((3, 4), steps=3)
    tx = jopt.adafactor(min_dim_size_to_factor=1)
    twin = adafactor(p, grads, min_dim_size_to_factor=1)
    assert_follows(tx, twin, p, grads)
    params = jnp.asarray(p, jnp.float32)
    state = tx.init(params)
    for t in range(1, 4):
        _, state = tx.update(params, state, params)
        assert jopt.hyperparams(state) == {"learning_rate": jnp.float32(0.01)}
        assert state["scale_by_relative_step"].count == t


def test_an_offset_of_adafactor_s_decay_is_finite_where_optax_gives_nan() -> None:
    params = jnp.ones((2, 3))
    with jax.numpy_dtype_promotion("standard"):
        theirs = real_optax.adafactor(0.1, decay_offset=5)
        updates, _ = theirs.update(params, theirs.init(params), params)
        assert jnp.isnan(updates).any()
    p, grads = common_direction((3, 4), steps=9)
    options = {"min_dim_size_to_factor": 1, "decay_offset": 5}
    twin = adafactor(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.adafactor(0.1, **options), twin, p, grads)


def test_an_infinite_gradient_is_not_hidden() -> None:
    tx, grads = jopt.adafactor(0.1, 1), jnp.ones((3, 4)).at[1, 1].set(jnp.inf)
    updates, _ = tx.update(grads, tx.init(grads), jnp.ones((3, 4)))
    assert not jnp.isfinite(updates).all()
