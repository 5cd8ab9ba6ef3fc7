"""The variance reduction of MARS, for any optimizer that follows.

    c <- g + gamma b1 / (1 - b1) (g - g_before)
    u <- c / max(|c|, 1)                          with the norm of each leaf

``g_before`` is the gradient of the previous batch at the previous parameters (0 in the
first step). This is the authors' "MARS-approx", which needs no second gradient.

Yuan, Liu, Wu, Zhou & Gu, "MARS: unleashing the power of variance reduction for training
large models", 2024. State: 4 bytes per float32 parameter. Followed by Adam or Lion with
the same b1, it is `jopt.mars_adamw` or `jopt.mars_lion`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jopt import tree
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.slots import Slot
from jopt.core.transformation import GradientTransformation
from jopt.transforms.clipping import excess
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class MarsCorrectionState(NamedTuple):
    """State of `mars_correction`."""

    previous_gradient: Any  # gradient of the previous step, like params


@transformation
def mars_correction(
    gamma: ScalarOrSchedule = 0.025,
    b1: ScalarOrSchedule = 0.95,
    max_norm: ScalarOrSchedule | None = 1.0,
    mask: Mask = None,
    *,
    previous_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Reduce the variance: ``u <- g + gamma b1 / (1 - b1) (g - g_before)``, clipped.

    Put it first in a chain, before the optimizer that uses the corrected gradient.

    Args:
      gamma: Scale of the correction, >= 0; 0 disables it.
      b1: Decay of the momentum that follows, in [0, 1).
      max_norm: Upper bound of each leaf's norm, > 0; None does not clip.
      mask: The leaves to correct; the authors correct matrices, ``lambda path, p:
        p.ndim == 2``.
      previous_dtype: Storage dtype of ``previous_gradient``; None means float32 or
        wider.

    Returns:
      A transformation.

    Raises:
      ValueError: An argument is out of range.

    Yuan, Liu, Wu, Zhou & Gu, "MARS", 2024.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.mars_correction(gamma=0.1, b1=0.5, max_norm=None)
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([2.0]), state)[0]
    Array([2.1], dtype=float32)
    """
    check_correction(gamma, b1, max_norm)

    def rule(g, before):
        return corrected(g, before, gamma, b1, max_norm), g

    return leafwise(
        rule,
        state=MarsCorrectionState,
        mask=mask,
        previous_gradient=zeros(previous_dtype),
    )


def check_correction(gamma: Any, b1: Any, max_norm: Any) -> None:
    """Raise ValueError if an argument of the correction is out of range."""
    arguments.nonnegative(gamma=gamma)
    arguments.decay_rate(b1=b1)
    if max_norm is not None:
        arguments.positive(max_norm=max_norm)


def corrected(
    g: jax.Array, before: jax.Array | None, gamma: Any, b1: Any, max_norm: Any
) -> jax.Array:
    """Return the corrected, clipped gradient; ``g`` itself if ``before`` is None."""
    if before is None:
        return g
    c = g + gamma * b1 / (1 - b1) * (g - before)
    if max_norm is None:
        return c
    return c / excess(tree.norm_along(c, None), max_norm)


def previous_gradients(dtype: StorageDtype | None, matrices_only: bool) -> Slot:
    """Return the slot of the previous gradients, for the leaves to correct."""
    if matrices_only:
        return zeros(dtype, over=lambda shape: () if len(shape) == 2 else None)
    return zeros(dtype)
