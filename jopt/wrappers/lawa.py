"""LAWA: the mean of the latest parameters, sampled every few steps.

    avg <- (p_t + p_(t - n) + ... + p_(t - (k - 1) n)) / k    every n steps

Kaddour, "Stop wasting my time! Saving days of ImageNet and BERT training with latest
weight averaging", 2022 (n is an epoch); Sanyal, Neerkaje, Kaddour, Kumar & Sanghavi,
"Early weight averaging meets high learning rates for LLM pre-training", 2023.

State: 4 k bytes per float32 parameter; an exponential moving average with a decay of
``1 - 1 / (k n)`` has about the same horizon and takes 4. Every step reads and writes
one of the k samples, even if it takes none.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import tree_checks
from jopt.core.factory import PlainDtype, transformation
from jopt.core.leafwise import copied
from jopt.core.leaves import Leaves
from jopt.core.transformation import GradientTransformation, Place
from jopt.tree.like import applied
from jopt.values import arguments


class ParamsLawaState(NamedTuple):
    """State of `params_lawa`."""

    count: jax.Array  # int32 scalar, updates so far
    window: Any  # like params, each leaf with a leading axis of window_size


@transformation
def params_lawa(
    window_size: int = 5,
    every: int = 1,
    *,
    accumulator_dtype: PlainDtype | None = None,
) -> GradientTransformation:
    """Keep the latest parameters and return their mean from `jopt.eval_params`.

    Samples are taken after steps ``every``, ``2 every``, …. The mean covers the samples
    taken so far; before the first it is the newest parameters.

    Args:
      window_size: The number of samples to keep, >= 1; each needs the memory of the
        parameters.
      every: Number of steps between samples, >= 1: an epoch, or a thousand steps.
      accumulator_dtype: Storage dtype of ``window``; None means float32 or wider.

    Returns:
      A transformation for the end of a chain; it needs params.

    Raises:
      ValueError: A number is out of range.

    Kaddour, "Stop wasting my time! Saving days of ImageNet and BERT training with
    latest weight averaging", 2022.

    >>> import jopt
    >>> tx, params = jopt.chain(jopt.sgd(1.0), jopt.params_lawa(2)), jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> params, jopt.eval_params(tx, state, params)
    (Array([-3.], dtype=float32), Array([-2.5], dtype=float32))
    """
    arguments.at_least(1, window_size=window_size, every=every)
    slot = copied(accumulator_dtype)

    def init(params):
        Leaves(params, "params")
        window = jax.tree.map(
            lambda p: applied(lambda p: _repeat(slot.init(p), window_size), p), params
        )
        return ParamsLawaState(jnp.zeros((), jnp.int32), window)

    def update(updates, state, params):
        leaves = Leaves(updates)
        params = leaves.aligned(params, "params")
        windows = leaves.aligned(
            state.window,
            "the state's window",
            shapes=lambda shape: (window_size, *shape),
        )
        count = tree.safe_increment(state.count)
        due, oldest = count % every == 0, (count // every - 1) % window_size
        new = []
        for i, (u, p, window) in enumerate(
            zip(leaves.values, params, windows, strict=True)
        ):
            if u is not None and window is None:
                tree_checks.no_slot(updates, i)
            new.append(window if u is None else _store(window, u, p, oldest, due))
        return updates, ParamsLawaState(count, leaves.tree(new))

    def readout(state, params):
        samples = jnp.minimum(state.count // every, window_size)

        def mean(p, window):
            return p if p is None or window is None else _mean(p, window, samples)

        return jax.tree.map(mean, params, state.window, is_leaf=lambda x: x is None)

    return GradientTransformation(
        init,
        update,
        state_class=ParamsLawaState,
        readout=readout,
        place=Place(keeps_updates=True, once_per_step=True),
    )


@functools.partial(jax.jit, static_argnums=1)
def _repeat(p: jax.Array, times: int) -> jax.Array:
    return jnp.broadcast_to(p, (times, *p.shape))


@jax.jit
def _store(
    window: jax.Array, u: jax.Array, p: jax.Array, oldest: jax.Array, due: jax.Array
) -> jax.Array:
    dtype = np.promote_types(*(tree.compute_dtype(x.dtype) for x in (p, u)))
    newest = (p.astype(dtype) + u.astype(dtype)).astype(window.dtype)
    # Read and write a sample in every step, which XLA does in place. A conditional
    # would force it to keep the updates and a copy of the parameters.
    old = jax.lax.dynamic_index_in_dim(window, oldest, keepdims=False)
    newest = jnp.where(due, newest, old)
    return jax.lax.dynamic_update_index_in_dim(window, newest, oldest, 0)


@jax.jit
def _mean(p: jax.Array, window: jax.Array, samples: jax.Array) -> jax.Array:
    dtype = np.promote_types(*(tree.compute_dtype(x.dtype) for x in (p, window)))
    is_sample = jnp.arange(window.shape[0], dtype=samples.dtype) < samples
    is_sample = is_sample.reshape(-1, *[1] * p.ndim)
    total = jnp.sum(jnp.where(is_sample, window.astype(dtype), 0), axis=0)
    mean = total / jnp.maximum(samples, 1).astype(dtype)
    return jnp.where(samples > 0, mean, p.astype(dtype)).astype(p.dtype)
