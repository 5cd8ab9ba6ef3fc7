"""Gradient noise."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import transformation
from jopt.core.key_stream import KeyStream
from jopt.core.leaves import Leaves
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class AddNoiseState(NamedTuple):
    """State of `add_noise`."""

    count: jax.Array  # int32 scalar, updates so far
    key: jax.Array  # uint32 key data, which every checkpoint format can store


@transformation
def add_noise(
    eta: ScalarOrSchedule, gamma: ScalarOrSchedule, key: int | jax.Array
) -> GradientTransformation:
    """Add decaying Gaussian noise: ``u <- g + N(0, eta / t^gamma)``, t = 1, 2, ….

    Args:
      eta: Variance at the first step, >= 0.
      gamma: Exponent of the decay, >= 0; 0.55 in the paper.
      key: A ``jax.random`` key, or an integer seed.

    Returns:
      A transformation whose state holds the key of the next step.

    Raises:
      ValueError: ``eta`` or ``gamma`` is negative, or ``key`` holds several keys.

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
        leaves = Leaves(updates)
        next_key, leaf_keys = keys.split(state.key, len(leaves.present))
        deviation = jnp.sqrt(eta * scalar(count) ** -gamma)
        noisy = leaves.values
        for i, leaf_key in zip(leaves.present, leaf_keys, strict=True):
            noisy[i] = _add_noise(noisy[i], leaf_key, deviation)
        return leaves.tree(noisy), AddNoiseState(count, next_key)

    return GradientTransformation(init, update, treatment=Treatment(noise=True))


@jax.jit
def _add_noise(g: jax.Array, key: jax.Array, deviation: jax.Array) -> jax.Array:
    # Drawn and added in float32 or wider: 16-bit normals are coarse, and the sum is
    # then rounded once.
    wide = tree.compute_dtype(g.dtype)
    noise = jax.random.normal(key, g.shape, wide)
    noise = noise * deviation.astype(wide)
    return (g.astype(wide) + noise).astype(g.dtype)
