"""Noise on a gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import tree_checks
from jopt.core.factory import transformation
from jopt.core.key_stream import KeyStream
from jopt.core.transformation import GradientTransformation
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class AddNoiseState(NamedTuple):
    """State of `add_noise`."""

    count: jax.Array  # int32 scalar, updates so far
    key: jax.Array  # uint32, the key's data: every checkpoint format can hold it


@transformation
def add_noise(
    eta: ScalarOrSchedule, gamma: ScalarOrSchedule, key: int | jax.Array
) -> GradientTransformation:
    """Add Gaussian noise that fades: ``u <- g + N(0, eta / t^gamma)``, t = 1, 2, ….

    Args:
      eta: The variance at the first step, >= 0.
      gamma: How fast it fades, >= 0; 0.55 in the paper.
      key: A key of ``jax.random``, or the seed of one.

    Returns:
      A transformation. Its state holds the key of the next step.

    Raises:
      ValueError: ``eta`` or ``gamma`` is negative, or there is more than one key.

    Neelakantan et al., "Adding gradient noise improves learning for very deep
    networks", 2015.

    >>> import jopt
    >>> tx = jopt.add_noise(0.01, 0.55, key=0)
    >>> updates, state = tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))
    """
    arguments.nonnegative(eta=eta, gamma=gamma)
    keys = KeyStream(key)

    def init(params):
        del params
        return AddNoiseState(jnp.zeros((), jnp.int32), keys.initial())

    def update(updates, state):
        count = tree.safe_increment(state.count)
        leaves, treedef = jax.tree.flatten(updates)
        tree_checks.leaves(leaves, updates, "updates")
        data, drawn = keys.split(state.key, len(leaves))
        deviation = jnp.sqrt(eta * scalar(count) ** -gamma)
        noisy = [_noisy(g, k, deviation) for g, k in zip(leaves, drawn, strict=True)]
        state = AddNoiseState(count, data)
        return treedef.unflatten(noisy), state

    return GradientTransformation(init, update)


@jax.jit
def _noisy(g: jax.Array, key: jax.Array, deviation: jax.Array) -> jax.Array:
    wide = tree.compute_dtype(g.dtype)
    noise = jax.random.normal(key, g.shape, wide)
    noise = noise * deviation.astype(wide)
    return (g.astype(wide) + noise).astype(g.dtype)
