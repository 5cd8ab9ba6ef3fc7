"""MARS-Lion: the sign of a momentum of gradients of reduced variance.

    c <- g + gamma b1 / (1 - b1) (g - g_before),   c <- c / max(|c|, 1) for each leaf
    m <- b1 m + (1 - b1) c
    u <- sign(m)

Yuan, Liu, Wu, Zhou & Gu, "MARS: unleashing the power of variance reduction for training
large models", 2024. Unlike Lion, it uses one b1 for both the update and the momentum.
State: 8 bytes per float32 parameter. Every element moves by the learning rate: use a
tenth of MARS-AdamW's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.variance_reduction import (
    check_correction,
    corrected,
    previous_gradients,
)
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values.numbers import ScalarOrSchedule


class ScaleByMarsLionState(NamedTuple):
    """State of `scale_by_mars_lion`."""

    mu: Any  # momentum of the corrected gradients, like params
    previous_gradient: Any  # gradient of the last step, like params


@transformation
def scale_by_mars_lion(
    b1: ScalarOrSchedule = 0.95,
    mu_dtype: StorageDtype | None = None,
    *,
    gamma: ScalarOrSchedule = 0.025,
    max_norm: ScalarOrSchedule | None = 1.0,
    matrices_only: bool = False,
    previous_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Take the sign of a momentum of the corrected gradients.

    Args:
      b1: Decay of the momentum, in [0, 1).
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      gamma: Strength of the correction, >= 0.
      max_norm: Largest norm of a corrected leaf, > 0; None does not clip.
      matrices_only: If True, only the gradients of leaves with exactly two axes are
        corrected.
      previous_dtype: Storage dtype of ``previous_gradient``; None means float32 or
        wider.

    Returns:
      A transformation. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    Raises:
      ValueError: A number is out of range.

    Yuan, Liu, Wu, Zhou & Gu, "MARS", 2024.

    >>> import jopt
    >>> tx = jopt.scale_by_mars_lion()
    >>> tx.update(jnp.array([2.0, -0.1]), tx.init(jnp.zeros(2)))[0]
    Array([ 1., -1.], dtype=float32)
    """
    check_correction(gamma, b1, max_norm)

    def rule(g, mu, before):
        mu = b1 * mu + (1 - b1) * corrected(g, before, gamma, b1, max_norm)
        # A leaf that is not corrected keeps no gradient.
        return jnp.sign(mu), mu, None if before is None else g

    return leafwise(
        rule,
        state=ScaleByMarsLionState,
        mu=zeros(mu_dtype),
        previous_gradient=previous_gradients(previous_dtype, matrices_only),
    )


@transformation
def mars_lion(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.95,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    gamma: ScalarOrSchedule = 0.025,
    max_norm: ScalarOrSchedule | None = 1.0,
    matrices_only: bool = False,
    previous_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """MARS-Lion: ``p <- p - learning_rate (sign(m) + weight_decay p)``.

    The momentum ``m`` averages corrected gradients: each gets a multiple of its change
    since the previous batch, which reduces the variance.

    Args:
      learning_rate: Step of every element, >= 0; 3e-4 is usual.
      b1, mu_dtype: See `scale_by_mars_lion`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      gamma, max_norm, matrices_only, previous_dtype: See `scale_by_mars_lion`.

    Returns:
      A transformation that needs params. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    Raises:
      ValueError: A number is out of range.

    Yuan, Liu, Wu, Zhou & Gu, "MARS", 2024. Equal to pytorch_optimizer's MARS with
    ``mars_type="lion"``.

    >>> import jopt
    >>> jopt.mars_lion(3e-4, weight_decay=0.1)
    mars_lion(learning_rate=0.0003, weight_decay=0.1)
    """
    return chain(
        scale_by_mars_lion(
            b1,
            mu_dtype,
            gamma=gamma,
            max_norm=max_norm,
            matrices_only=matrices_only,
            previous_dtype=previous_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
