"""Keras's weight decay: the parameters shrink first, then the optimizer looks at them.

    p <- p - learning_rate weight_decay p
    p <- p + u(g, p)

Where ``u`` does not depend on p, `add_decayed_weights` before the learning rate is the
same; this is for Adafactor, Ftrl, ScheduleFreeAdamW, and momentum that has the learning
rate inside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened
from jopt.values.arguments import abbreviated


class DecayedFirstState(NamedTuple):
    """State of `decayed_first`."""

    decay_state: Any  # of the decay
    inner_state: Any  # of the inner transformation


@transformation
def decayed_first(
    inner: GradientTransformation, decay: GradientTransformation
) -> GradientTransformation:
    """Make a step without gradient, then show what it left to another transformation.

    Args:
      inner: An optimizer; it gets the parameters that the decay has left.
      decay: What shrinks them, such as ``chain(add_decayed_weights(0.1),
        scale_by_learning_rate(0.01))``; its gradient is zero.

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
        if not isinstance(state, DecayedFirstState):
            raise TypeError(
                "decayed_first expects the state that its init made, a "
                f"DecayedFirstState, but got {abbreviated(state)}. The order is "
                "update(updates, state, params)."
            )
        nothing = jax.tree.map(jnp.zeros_like, updates)
        shrunk, first = decay.update(nothing, state.decay_state, params)
        left = apply_updates(params, shrunk)
        updates, second = inner.update(updates, state.inner_state, left, **extra)
        total = jax.tree.map(jnp.add, updates, shrunk)
        return total, DecayedFirstState(first, second)

    def readout(state, params):
        return eval_params(inner, state.inner_state, params)

    tx = GradientTransformation(
        init,
        update,
        children={"decay_state": decay, "inner_state": inner},
        readout=readout if has_readout(inner) else None,
    )
    return widened(tx)
