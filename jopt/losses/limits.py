"""Products and softmax with their limits where a number is infinite."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jopt.losses.inputs import Axis


def times(weight: jax.Array, x: jax.Array) -> jax.Array:
    """Return ``weight * x``, and 0 where the weight is 0, even if x is infinite.

    >>> times(jnp.array([0.0, 2.0]), jnp.array([-jnp.inf, 3.0]))
    Array([0., 6.], dtype=float32)
    """
    return weight * jnp.where((weight == 0) & jnp.isinf(x), 0, x)


def below_top(x: jax.Array, top: jax.Array) -> jax.Array:
    """Return ``x - top``, and 0 where both are the same infinity."""
    return jnp.where(jnp.isinf(top) & (x == top), 0, x - top)


def softmax_parts(
    x: jax.Array, axis: Axis, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The parts of a softmax: top, logits minus top, log of the sum of exponentials.

    The log-softmax is the second minus the third. A logit of infinity has all of the
    probability, shared if there are several.

    Args:
      x: Logits.
      axis: The axis or axes of the classes.
      where: Bools like ``x``: which logits count. The others have probability 0.
    """
    if where is not None:
        x = jnp.where(where, x, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf))
    shifted = below_top(x, top)
    total = jnp.sum(jnp.exp(shifted), axis=axis, keepdims=True)
    return top, shifted, jnp.log(total)


def log_softmax(x: jax.Array, axis: Axis, where: jax.Array | None = None) -> jax.Array:
    """The log-probabilities of a softmax; see `softmax_parts`."""
    _, shifted, log_total = softmax_parts(x, axis, where)
    return shifted - log_total


def cross_entropy(
    logits: jax.Array, labels: jax.Array, axis: Axis, where: jax.Array | None = None
) -> jax.Array:
    """``-sum(labels * log_softmax(logits))`` along the axis; 0 if nothing counts."""
    if where is not None:
        labels = jnp.where(where, labels, 0)
    _, shifted, log_total = softmax_parts(logits, axis, where)
    return jnp.sum(times(labels, log_total - shifted), axis=axis)
