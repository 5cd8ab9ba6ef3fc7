"""Lion: the sign of an interpolated momentum, or a smooth approximation of it.

    c <- b1 m + (1 - b1) g
    m <- b2 m + (1 - b2) g
    u <- sign(c)                  hard
    u <- tanh(smooth_beta c)      smooth
    u <- clip(c, -1, 1)           refined

Chen et al., "Symbolic discovery of optimization algorithms", 2023. State: 4 bytes per
float32 parameter, 2 with ``mu_dtype="bfloat16"``. Every element moves by the learning
rate: use a tenth to a third of AdamW's, and three to ten times its weight decay.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


LionMode = Literal["hard", "smooth", "refined"]


class ScaleByLionState(NamedTuple):
    """State of `scale_by_lion`."""

    mu: Any  # momentum, like params


@transformation
def scale_by_lion(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    mu_dtype: StorageDtype | None = None,
    *,
    mode: LionMode = "hard",
    smooth_beta: ScalarOrSchedule = 1.0,
) -> GradientTransformation:
    """Take the sign of an interpolated momentum: ``u <- sign(b1 m + (1 - b1) g)``.

    Args:
      b1: Weight of the momentum in the update, in [0, 1).
      b2: Decay of the momentum, in [0, 1).
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      mode: ``"hard"`` is the sign, ``"smooth"`` the hyperbolic tangent, ``"refined"``
        the clip to [-1, 1]. The last two take small steps for small gradients, so the
        scale of the gradients matters again, and they accept real numbers only.
      smooth_beta: Slope of the hyperbolic tangent at zero, > 0; infinity is the sign.

    Returns:
      A transformation. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    Raises:
      ValueError: A number is out of range.

    Chen et al., "Symbolic discovery of optimization algorithms", 2023. Equal to optax.

    >>> import jopt
    >>> tx = jopt.scale_by_lion()
    >>> tx.update(jnp.array([2.0, -0.1]), tx.init(jnp.zeros(2)))[0]
    Array([ 1., -1.], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.one_of(("hard", "smooth", "refined"), mode=mode)
    arguments.positive(smooth_beta=smooth_beta)

    def squashed(c):
        if mode == "smooth":
            return jnp.tanh(smooth_beta * c)
        return jnp.sign(c) if mode == "hard" else jnp.clip(c, -1, 1)

    def rule(g, m):
        return squashed(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g

    # Of the three, only the sign extends to complex numbers, as z / |z|.
    real = mode != "hard"
    return leafwise(rule, state=ScaleByLionState, real_only=real, mu=zeros(mu_dtype))


@transformation
def lion(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
    *,
    mode: LionMode = "hard",
    smooth_beta: ScalarOrSchedule = 1.0,
) -> GradientTransformation:
    """Lion: ``p <- p - learning_rate (sign(b1 m + (1 - b1) g) + weight_decay p)``.

    Every element moves by the learning rate, and there is no second moment to store.
    Use a tenth to a third of AdamW's learning rate and three to ten times its weight
    decay.

    Args:
      learning_rate: Step of every element, >= 0; 1e-4 is usual.
      b1, b2, mu_dtype: See `scale_by_lion`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate; Keras's
        default is none.
      mask: See `add_decayed_weights`.
      mode, smooth_beta: See `scale_by_lion`.

    Returns:
      A transformation that needs params. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    Raises:
      ValueError: A number is out of range.

    Chen et al., "Symbolic discovery of optimization algorithms", 2023.

    >>> import jopt
    >>> jopt.lion(1e-4, weight_decay=0.1)
    lion(learning_rate=0.0001, weight_decay=0.1)
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype, mode=mode, smooth_beta=smooth_beta),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
