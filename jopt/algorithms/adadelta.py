"""Adadelta: step sizes in the units of the parameters.

    v <- rho v + (1 - rho) g^2
    u <- sqrt(x + eps) / sqrt(v + eps) g
    x <- rho x + (1 - rho) u^2

Zeiler, "ADADELTA: an adaptive learning rate method", 2012. State: 8 bytes per float32
parameter. The paper has no learning rate, which corresponds to 1.0.
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
from jopt.tree import abs_sq, ratio
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
    """Rescale by the RMS of past updates over the RMS of gradients.

    Args:
      rho: Decay of both mean squares, in [0, 1).
      eps: Added to both mean squares, > 0. It sets the size of the first updates and
        keeps the divisor positive.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: ``rho`` is outside [0, 1), or ``eps`` is not positive.

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
        u = ratio(jnp.sqrt(e_x + eps), jnp.sqrt(e_g + eps), eps) * g
        e_x = rho * e_x + (1 - rho) * abs_sq(u)
        return u, e_g, e_x

    return leafwise(
        rule,
        state=ScaleByAdadeltaState,
        e_g=zeros(real=True, divides=True),
        e_x=zeros(real=True),
    )


@transformation
def adadelta(
    learning_rate: ScalarOrSchedule,
    rho: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
) -> GradientTransformation:
    """Adadelta; its weight decay is an L2 penalty, as in optax and torch.

    Keras's defaults are ``rho=0.95, eps=1e-7``.

    Args:
      learning_rate: The step size, >= 0; 1.0 in the paper.
      rho, eps: See `scale_by_adadelta`.
      weight_decay: Strength of the L2 penalty, >= 0: ``weight_decay p`` is added to the
        gradient.
      weight_decay_mask: The leaves to decay, in any form of `jopt.Mask`.

    Returns:
      A transformation; it needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    >>> import jopt
    >>> jopt.adadelta(1.0, rho=0.95)
    adadelta(learning_rate=1.0, rho=0.95)
    """
    scaled = [scale_by_adadelta(rho, eps), scale_by_learning_rate(learning_rate)]
    if isinstance(weight_decay, float) and weight_decay == 0:
        return chain(*scaled)
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), *scaled)
