"""Keras's weight decay: the parameters shrink first, then the optimizer sees them.

    p <- p - learning_rate weight_decay p
    p <- p + u(g, p)

If ``u`` does not depend on p, `add_decayed_weights` before the learning rate gives the
same step. This file is for the rest: Adafactor, Ftrl, ScheduleFreeAdamW, and momentum
that contains the learning rate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened


class DecayedFirstState(NamedTuple):
    """State of `decayed_first`."""

    decay_state: Any  # state of the decay
    inner_state: Any  # state of the inner transformation


@transformation
def decayed_first(
    inner: GradientTransformation, decay: GradientTransformation
) -> GradientTransformation:
    """Shrink the parameters, then show the result to another transformation.

    Args:
      inner: The optimizer; it sees the shrunken parameters.
      decay: The transformation that shrinks them, such as
        ``chain(add_decayed_weights(0.1), scale_by_learning_rate(0.01))``; it gets a
        gradient of zeros.

    Returns:
      A transformation; it needs params. Extra arguments go to the inner one.

    >>> import jopt
    >>> decay = jopt.chain(jopt.add_decayed_weights(0.1), jopt.scale(-1.0))
    >>> tx = decayed_first(jopt.add_decayed_weights(1.0), decay)
    >>> params = jnp.array([10.0])
    >>> tx.update(jnp.array([0.0]), tx.init(params), params)[0]
    Array([8.], dtype=float32)
    """
    inner = as_transformation(inner, "decayed_first: inner")
    decay = as_transformation(decay, "decayed_first: decay")

    def init(params):
        return DecayedFirstState(decay.init(params), inner.init(params))

    def update(updates, state, params=None, **extra):
        zeros = jax.tree.map(jnp.zeros_like, updates)
        shrinkage, decay_state = decay.update(zeros, state.decay_state, params)
        shrunken = apply_updates(params, shrinkage)
        updates, inner_state = inner.update(
            updates, state.inner_state, shrunken, **extra
        )
        total = jax.tree.map(jnp.add, updates, shrinkage)
        return total, DecayedFirstState(decay_state, inner_state)

    tx = GradientTransformation(
        init,
        update,
        state_class=DecayedFirstState,
        children={"decay_state": decay, "inner_state": inner},
    )
    return widened(tx)
