"""Keras's average of the parameters under gradient accumulation: it counts gradients.

With N gradients per step, gradient i = 0, 1, … belongs to step i // N.

    avg <- p                             for the first N gradients
    avg <- decay avg + (1 - decay) p     for every gradient after them
    p   <- avg                           for all N of every ``overwrite_every``-th step
"""

from __future__ import annotations

import jax.numpy as jnp

from jopt.core.factory import transformation
from jopt.core.leafwise import copied, leafwise
from jopt.core.transformation import GradientTransformation
from jopt.tree import scalar
from jopt.values import arguments
from jopt.wrappers.averaging import ParamsEmaState


@transformation
def params_ema_of_gradients(
    decay: float, steps: int, overwrite_every: int
) -> GradientTransformation:
    """Average the parameters as `params_ema` does, once for every accumulated gradient.

    Args:
      decay: Decay of the average, in [0, 1].
      steps: Number of gradients per step, >= 1.
      overwrite_every: Every so many steps, >= 1, the average replaces the parameters.

    Returns:
      A transformation for the end of a chain; it needs params.

    Raises:
      ValueError: A number is out of range.

    >>> import jopt
    >>> ema = params_ema_of_gradients(0.5, steps=2, overwrite_every=2)
    >>> tx, p = jopt.chain(jopt.accumulate(jopt.sgd(1.0), 2), ema), jnp.zeros(1)
    >>> state = tx.init(p)
    >>> for _ in range(4):
    ...     p, state = jopt.step(tx, jnp.ones(1), state, p)
    >>> p  # the average of -1 and -2 replaces -2
    Array([-1.5], dtype=float32)
    """
    arguments.fraction(decay=decay)
    arguments.at_least(1, steps=steps, overwrite_every=overwrite_every)

    def scalars(count):
        step = count // steps
        return {
            "w": scalar(jnp.where(step > 0, 1 - decay, 1.0)),
            "overwrite": scalar((step + 1) % overwrite_every == 0),
        }

    def rule(u, avg, *, p, w, overwrite):
        # Not `new_avg - p`, which loses digits where the average is close to p.
        to_average = (1 - w) * (avg - p) + w * u
        return jnp.where(overwrite > 0, to_average, u), (1 - w) * avg + w * (p + u)

    def evaluated(p, avg):
        del p
        return avg

    return leafwise(rule, scalars, ParamsEmaState, readout=evaluated, ema=copied(None))
