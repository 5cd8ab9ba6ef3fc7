"""Clipping, noise, momentum and other processing, with optax's names and states."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import jopt
from jopt import tree
from jopt.interop.optax.base import (
    EmptyState,
    Numeric,
    Pair,
    as_pair,
    lenient,
    own,
    own_without_extra,
    with_fields,
    without_state,
)
from jopt.transforms.clipping import unit_axes


# Clipping.


ClipState = ClipByGlobalNormState = AdaptiveGradClipState = EmptyState


@lenient
def clip(max_delta: Numeric) -> Pair:
    """Clip every element, see `jopt.clip`."""
    return without_state(jopt.clip(max_delta))


@lenient
def clip_by_global_norm(max_norm: Numeric) -> Pair:
    """Clip by the norm of all updates, see `jopt.clip_by_global_norm`."""
    return without_state(jopt.clip_by_global_norm(max_norm))


@lenient
def clip_by_block_rms(threshold: Numeric) -> Pair:
    """Clip the RMS of each leaf, see `jopt.clip_by_block_rms`."""
    return without_state(jopt.clip_by_block_rms(threshold))


@lenient
def adaptive_grad_clip(
    clipping: Numeric, eps: Numeric = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Pair:
    """Clip by the norms of the parameters, see `jopt.adaptive_grad_clip`."""
    return without_state(jopt.adaptive_grad_clip(clipping, eps, axis))


def unitwise_norm(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Return the norm of each unit of a leaf, as `adaptive_grad_clip` compares it.

    Args:
      x: A leaf.
      axis: The axes of a unit; None means all but the last of a kernel.

    Returns:
      An array of the shape of ``x``.

    Raises:
      ValueError: ``axis`` is None, and the leaf has more than five axes.
    """
    axis = unit_axes(jnp.shape(x)) if axis is None else axis
    return jnp.broadcast_to(tree.norm_along(x, axis), jnp.shape(x))


def unitwise_clip(
    g_norm: jax.Array, max_norm: jax.Array, grad: jax.Array, div_eps: float = 1e-6
) -> jax.Array:
    """Return a gradient with units whose norm is at most ``max_norm``.

    Args:
      g_norm: The norm of each unit of ``grad``.
      max_norm: The largest norms.
      grad: The gradient; all three have its shape.
      div_eps: The smallest divisor.

    Returns:
      An array of this shape.
    """
    clipped = grad * (max_norm / jnp.maximum(g_norm, div_eps))
    return jnp.where(g_norm < max_norm, grad, clipped)


# Constraints.


NonNegativeParamsState = EmptyState


def keep_params_nonnegative() -> Pair:
    """Keep parameters >= 0, see `jopt.keep_params_nonnegative`."""
    return without_state(jopt.keep_params_nonnegative())


class ZeroNansState(NamedTuple):
    """State of `zero_nans`."""

    found_nan: Any  # for each leaf, whether the last update had a NaN


def zero_nans() -> Pair:
    """Replace NaN with zero, see `jopt.zero_nans`."""
    zeros = without_state(jopt.zero_nans())

    def init(params):
        return ZeroNansState(jax.tree.map(lambda _: jnp.zeros((), bool), params))

    def update(updates, state, params=None):
        found = jax.tree.map(lambda g: jnp.any(jnp.isnan(g)), updates)
        updates, _ = zeros.update(updates, EmptyState(), params)
        return updates, state._replace(found_nan=found)

    return own_without_extra(init, update)


# Momentum.


class TraceState(NamedTuple):
    """State of `trace`."""

    trace: Any


@lenient
def trace(
    decay: Numeric, nesterov: bool = False, accumulator_dtype: Any = None
) -> Pair:
    """Sum updates with a decay, see `jopt.trace`."""
    return with_fields(jopt.trace(decay, nesterov, accumulator_dtype), TraceState)


class EmaState(NamedTuple):
    """State of `ema`."""

    count: Any
    ema: Any


@lenient
def ema(decay: Numeric, debias: bool = True, accumulator_dtype: Any = None) -> Pair:
    """Average the updates, see `jopt.ema`."""
    return with_fields(jopt.ema(decay, debias, accumulator_dtype), EmaState)


# Noise.


class AddNoiseState(NamedTuple):
    """State of `add_noise`."""

    count: Any
    rng_key: Any


@lenient
def add_noise(
    eta: Numeric, gamma: Numeric, key: Any = None, *, seed: int | None = None
) -> Pair:
    """Add decaying noise, see `jopt.add_noise`.

    Args:
      eta, gamma: See `jopt.add_noise`.
      key: A random key or a seed.
      seed: The older name of ``key``.

    Returns:
      A transformation.

    Raises:
      ValueError: Both ``key`` and ``seed`` are given.
    """
    if seed is not None:
        if key is not None:
            raise ValueError(f"add_noise: give key or seed, not both, got seed={seed}")
        warnings.warn("add_noise: seed is now called key", DeprecationWarning, 2)
        key = seed
    key = 0 if key is None else key

    def init(params):
        del params
        return AddNoiseState(jnp.zeros((), jnp.int32), typed_key(key))

    # The draws of jopt.add_noise have the same law; these are optax's to the bit.
    def update(updates, state, params=None):
        del params
        count = tree.safe_increment(state.count)
        next_key, sample_key = jax.random.split(state.rng_key)
        noise = random_like(sample_key, updates, jax.random.normal)
        deviation = jnp.sqrt(eta / count**gamma)
        noisy = jax.tree.map(
            lambda g, x: g + deviation.astype(g.dtype) * x, updates, noise
        )
        return noisy, state._replace(count=count, rng_key=next_key)

    return own_without_extra(init, update)


def typed_key(key: Any) -> jax.Array:
    """Return a key as it is, and the key of a seed; the seed may be traced."""
    is_key = isinstance(key, jax.Array) and (
        key.ndim == 1 or jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    )
    return key if is_key else jax.random.key(key)


def random_like(key: jax.Array, like: Any, sampler: Any) -> Any:
    """Return a tree of random numbers, drawn with one key per leaf as optax does."""
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        [sampler(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


# Layout.


def flatten(inner: Any) -> Pair:
    """Give a transformation one vector of all leaves.

    Args:
      inner: A transformation.

    Returns:
      A transformation, whose state is that of ``inner`` for the vector.

    >>> from jopt.interop import optax
    >>> tx = optax.flatten(optax.trace(0.9))
    >>> tx.init({"b": jnp.ones(1), "w": jnp.ones((2, 2))}).trace.shape
    (5,)
    """
    inner = as_pair(inner, "flatten: inner")

    def joined(whole):
        return ravel_pytree(whole)

    def init(params):
        return inner.init(joined(params)[0])

    def update(updates, state, params=None, **extra_args):
        vector, separate = joined(updates)
        params = None if params is None else joined(params)[0]
        vector, state = inner.update(vector, state, params, **extra_args)
        return separate(vector), state

    return own(init, update)
