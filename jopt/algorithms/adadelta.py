"""Adadelta: step sizes in the units of the parameters.

    v <- rho v + (1 - rho) g^2
    u <- sqrt(x + eps) / sqrt(v + eps) g
    x <- rho x + (1 - rho) u^2

Zeiler, "ADADELTA: an adaptive learning rate method", 2012. State: 8 bytes per float32
parameter. The paper has no learning rate, that is 1.0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import abs_sq
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAdadeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    e_g: Any  # mean square of the gradients, like params, real
    e_x: Any  # mean square of the updates, like params, real


@transformation
def scale_by_adadelta(
    rho: ScalarOrSchedule = 0.9, eps: ScalarOrSchedule = 1e-6
) -> GradientTransformation:
    """Rescale by the ratio of two root mean squares, of the updates and the gradients.

    Args:
      rho: Decay of both mean squares, in [0, 1).
      eps: Starts the updates and keeps the division from zero, > 0.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    >>> import jopt
    >>> tx = jopt.scale_by_adadelta(rho=0.75, eps=1.0)
    >>> tx.update(jnp.array([0.0, 2.0]), tx.init(jnp.zeros(2)))[0].round(4)
    Array([0.    , 1.4142], dtype=float32)
    """
    arguments.decay_rate(rho=rho)
    arguments.positive(eps=eps)

    def rule(g, e_g, e_x):
        e_g = rho * e_g + (1 - rho) * abs_sq(g)
        u = jnp.sqrt(e_x + eps) / jnp.sqrt(e_g + eps) * g
        e_x = rho * e_x + (1 - rho) * abs_sq(u)
        return u, e_g, e_x

    return leafwise(
        rule, state=ScaleByAdadeltaState, e_g=zeros(real=True), e_x=zeros(real=True)
    )


@transformation
def adadelta(
    learning_rate: ScalarOrSchedule,
    rho: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
) -> GradientTransformation:
    """Adadelta; its weight decay is an L2 penalty, as optax's and torch's.

    Args:
      learning_rate: The step size, >= 0; 1.0 in the paper.
      rho: Decay of both mean squares, in [0, 1); Keras has 0.95.
      eps: Starts the updates, > 0; Keras has 1e-7.
      weight_decay: >= 0, added to the gradient as ``weight_decay p``.
      weight_decay_mask: The leaves to decay; see `add_decayed_weights`.

    Returns:
      A transformation; it needs params if there is a weight decay.

    Raises:
      ValueError: A number is out of its range.

    Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    >>> import jopt
    >>> jopt.adadelta(1.0, rho=0.95)
    adadelta(learning_rate=1.0, rho=0.95)
    """
    scaled = [scale_by_adadelta(rho, eps), scale_by_learning_rate(learning_rate)]
    if isinstance(weight_decay, float) and weight_decay == 0:
        return chain(*scaled)
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), *scaled)
