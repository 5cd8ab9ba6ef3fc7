"""Normalization, privacy, plateaus and complex numbers of ``optax.contrib``."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jopt
from jopt.interop.optax.base import (
    EmptyState,
    Pair,
    ScalarOrSchedule,
    as_pair,
    chain,
    lenient,
    own,
    with_fields,
    without_state,
)
from jopt.interop.optax.processing import trace
from jopt.interop.optax.scaling import identity, scale_by_learning_rate


NormalizeState = EmptyState


def normalize() -> Pair:
    """Divide by the norm of all updates, see `jopt.normalize`."""
    return without_state(jopt.normalize())


# Privacy.


class DifferentiallyPrivateAggregateState(NamedTuple):
    """State of `differentially_private_aggregate`."""

    rng_key: Any


@lenient
def differentially_private_aggregate(
    l2_norm_clip: float,
    noise_multiplier: float,
    key: Any = None,
    *,
    seed: int | None = None,
) -> Pair:
    """Aggregate gradients per example, see `jopt.differentially_private_aggregate`.

    Args:
      l2_norm_clip, noise_multiplier: See `jopt.differentially_private_aggregate`.
      key: A random key or a seed.
      seed: The older name of ``key``.

    Returns:
      A transformation.

    Raises:
      ValueError: Both ``key`` and ``seed`` are given.
    """
    if seed is not None:
        if key is not None:
            raise ValueError(f"give key or seed, not both, got seed={seed}")
        warnings.warn("seed is now called key", DeprecationWarning, 2)
        key = seed
    key = 0 if key is None else key
    typed = key if isinstance(key, jax.Array) else jax.random.key(key)
    impl = jax.random.key_impl(typed)
    return with_fields(
        jopt.differentially_private_aggregate(l2_norm_clip, noise_multiplier, key),
        DifferentiallyPrivateAggregateState,
        ours={"key": lambda state, _: jax.random.key_data(state.rng_key)},
        theirs={
            "rng_key": lambda state, _: jax.random.wrap_key_data(state.key, impl=impl)
        },
    )


def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: float,
    noise_multiplier: float,
    seed: Any,
    momentum: float | None = None,
    nesterov: bool = False,
) -> Pair:
    """Private SGD, see `jopt.dpsgd`."""
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        identity() if momentum is None else trace(momentum, nesterov),
        scale_by_learning_rate(learning_rate),
    )


# Plateaus.


class ReduceLROnPlateauState(NamedTuple):
    """State of `reduce_on_plateau`."""

    scale: Any
    best_value: Any
    plateau_count: Any
    cooldown_count: Any
    count: Any
    avg_value: Any


def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: float = 0.0,
) -> Pair:
    """Scale updates down on a plateau, see `jopt.reduce_on_plateau`.

    Raises:
      ValueError: A number is out of range, or ``rtol`` and ``atol`` are both zero.
    """
    if not 0 < factor < 1:
        raise ValueError(f"factor must be in the range (0, 1), got factor={factor}")
    if rtol == 0 and atol == 0:
        raise ValueError("rtol or atol must be positive, got 0 for both")
    if not 0 <= rtol <= 1 or atol < 0:
        raise ValueError(
            f"rtol must be in [0, 1] and atol >= 0, got rtol={rtol}, atol={atol}"
        )
    tx = jopt.reduce_on_plateau(
        factor, patience, rtol, atol, cooldown, accumulation_size, min_scale
    )

    def ours(name):
        return lambda state, _: jnp.asarray(getattr(state, name), jnp.float32)

    def theirs(name):
        return lambda state, _: jnp.asarray(getattr(state, name), jnp.int32)

    counts = {
        "plateau_count": "plateau_count",
        "cooldown_count": "cooldown_count",
        "avg_count": "count",
    }
    return with_fields(
        tx,
        ReduceLROnPlateauState,
        ours={name: ours(other) for name, other in counts.items()},
        theirs={other: theirs(name) for name, other in counts.items()},
    )


# Complex numbers.


class SplitRealAndImaginaryState(NamedTuple):
    """State of `split_real_and_imaginary`."""

    inner_state: Any


class SplitRealAndImaginaryArrays(NamedTuple):
    """A complex array, as two real ones."""

    real: Any
    imaginary: Any


def split_real_and_imaginary(inner: Any) -> Pair:
    """Give a transformation two real arrays for a complex one.

    `jopt.split_real_and_imaginary` gives the same numbers with another state.

    Args:
      inner: A transformation.

    Returns:
      A transformation.
    """
    inner = as_pair(inner, "split_real_and_imaginary: inner")

    def is_split(x):
        return isinstance(x, SplitRealAndImaginaryArrays)

    def split(whole):
        return jax.tree.map(
            lambda x: (
                SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x))
                if jnp.iscomplexobj(x)
                else x
            ),
            whole,
        )

    def init(params):
        return SplitRealAndImaginaryState(inner.init(split(params)))

    def update(updates, state, params=None, **extra_args):
        updates, inner_state = inner.update(
            split(updates), state.inner_state, split(params), **extra_args
        )
        updates = jax.tree.map(
            lambda x: jax.lax.complex(*x) if is_split(x) else x,
            updates,
            is_leaf=is_split,
        )
        return updates, state._replace(inner_state=inner_state)

    return own(init, update)
