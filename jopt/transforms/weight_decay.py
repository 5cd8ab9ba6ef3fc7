"""Weight decay: pull the parameters towards zero.

Before the learning rate it is AdamW's decoupled decay, ``p <- p - lr * wd * p``
(Loshchilov & Hutter, "Decoupled weight decay regularization", 2019); before everything
else it is an L2 penalty, which the optimizer then rescales like any gradient.
"""

from __future__ import annotations

from jopt import checks
from jopt.base import GradientTransformation
from jopt.factory import transformation
from jopt.hyperparams import ScalarOrSchedule
from jopt.leafwise import leafwise
from jopt.masks import Mask


@transformation
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None
) -> GradientTransformation:
    """Add a multiple of the parameters: ``u <- g + weight_decay * p``.

    Args:
      weight_decay: The multiple, >= 0.
      mask: The leaves to decay: a regular expression on the path, a function
        ``(path, leaf) -> bool``, a tree of bools, or ``params -> tree of bools``.

    Returns:
      A transformation; without state if the decay is a constant. It needs params.

    Raises:
      ValueError: The decay is negative or not finite.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.add_decayed_weights(0.1, mask="kernel")
    >>> params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> zero = {"bias": jnp.zeros(1), "kernel": jnp.zeros(1)}
    >>> tx.update(zero, tx.init(params), params)[0]
    {'bias': Array([0.], dtype=float32), 'kernel': Array([0.1], dtype=float32)}
    """
    checks.nonnegative(weight_decay=weight_decay)
    return leafwise(lambda g, *, p: g + weight_decay * p, mask=mask)
