"""Simplified AdEMAMix: a decaying sum of gradients, plus a multiple of the newest.

    m <- b1 m + g
    n <- b2 n + (1 - b2) g^2
    u <- (m + alpha g) / (sqrt(n^) + eps)

Morwani et al., "Connections between schedule-free optimizers, AdEMAMix, and accelerated
SGD variants", 2025. State: 8 bytes per float32 parameter. The sum is about
``1 / (1 - b1)`` times a mean, so the learning rate is that much smaller than Adam's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import check_adam
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleBySimplifiedAdemamixState(NamedTuple):
    """State of `scale_by_simplified_ademamix`."""

    count: jax.Array  # int32 scalar, updates so far
    m: Any  # decaying sum of the gradients, like params
    n: Any  # second moment, like params, real


@transformation
def scale_by_simplified_ademamix(
    b1: ScalarOrSchedule = 0.99,
    b2: ScalarOrSchedule = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    *,
    m_dtype: StorageDtype | None = None,
    n_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Rescale a sum and the gradient: ``u <- (m + alpha g) / (sqrt(n^) + eps)``.

    Args:
      b1: Decay of the sum of gradients, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      alpha: Weight of the gradient, >= 0.
      eps, eps_root: See `scale_by_adam`.
      m_dtype: Storage dtype of ``m``; None means float32 or wider.
      n_dtype: Storage dtype of ``n``; None means float32 or wider.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Morwani et al., "Connections between schedule-free optimizers, AdEMAMix, and
    accelerated SGD variants", 2025.

    >>> import jopt
    >>> tx = jopt.scale_by_simplified_ademamix(alpha=2.0)
    >>> tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))[0].round(4)
    Array([3.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, "after")
    arguments.nonnegative(alpha=alpha)

    def scalars(t):
        return {"n_scale": 1 / one_minus_power(b2, t)}

    def rule(g, m, n, *, n_scale):
        m = b1 * m + g
        n = b2 * n + (1 - b2) * abs_sq(g)
        root = jnp.sqrt(n_scale * n + eps_root) + eps
        return ratio(m + alpha * g, root, eps, eps_root), m, n

    return leafwise(
        rule,
        scalars,
        ScaleBySimplifiedAdemamixState,
        m=zeros(m_dtype),
        n=zeros(n_dtype, real=True, divides=True),
    )


@transformation
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.99,
    b2: ScalarOrSchedule = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    m_dtype: StorageDtype | None = None,
    n_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Simplified AdEMAMix: a decaying sum of gradients, plus a multiple of the newest.

        p <- p - learning_rate ((m + alpha g) / (sqrt(n^) + eps) + weight_decay p)

    One slow sum ``m`` and the gradient replace the two averages of AdEMAMix. Equal to
    optax, and to the authors' code without its warmup of b1.

    Args:
      learning_rate: Step size, >= 0; about ``1 - b1`` times Adam's, because ``m`` is a
        sum.
      b1, b2, alpha, eps, eps_root: See `scale_by_simplified_ademamix`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      m_dtype, n_dtype: See `scale_by_simplified_ademamix`.

    Returns:
      A transformation that needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Morwani et al., "Connections between schedule-free optimizers, AdEMAMix, and
    accelerated SGD variants", 2025.

    >>> import jopt
    >>> jopt.simplified_ademamix(1e-5, alpha=10.0)
    simplified_ademamix(learning_rate=1e-05, alpha=10.0)
    """
    return chain(
        scale_by_simplified_ademamix(
            b1, b2, alpha, eps, eps_root, m_dtype=m_dtype, n_dtype=n_dtype
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
