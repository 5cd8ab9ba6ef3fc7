"""LaProp: normalize each gradient first, then average.

    v <- b2 v + (1 - b2) g^2
    m <- b1 m + (1 - b1) g / (sqrt(v^) + eps)
    u <- m / (1 - b1^t)

Ziyin, Wang & Ueda, "LaProp: separating momentum and adaptivity in Adam", 2020. State:
8 bytes per float32 parameter, 6 with ``mu_dtype="bfloat16"``. Each gradient is divided
by the second moment of its own step, so every pair of decays is stable. The authors'
learning rate is 4e-4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import EpsMode, check_adam, eps_terms
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values.numbers import ScalarOrSchedule


class ScaleByLapropState(NamedTuple):
    """State of `scale_by_laprop`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # mean of the normalized gradients, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_laprop(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-15,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Average the normalized gradients: ``m <- b1 m + (1 - b1) g / (sqrt(v^) + eps)``.

    Args:
      b1: Decay of the mean of normalized gradients, in [0, 1).
      b2, eps, eps_root, mu_dtype, nu_dtype: See `scale_by_adam`.
      eps_mode: ``"after"`` adds eps after the bias correction (the authors),
        ``"before"`` adds it before (pytorch_optimizer, which has 1e-15 for both eps).

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Ziyin, Wang & Ueda, "LaProp", 2020, algorithm 1.

    >>> import jopt
    >>> tx = jopt.scale_by_laprop()
    >>> tx.update(jnp.array([2.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(4)
    Array([ 1., -1.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, eps_mode)

    def scalars(t):
        nu_scale = 1 / one_minus_power(b2, t)
        return {
            "mu_scale": 1 / one_minus_power(b1, t),
            "nu_scale": nu_scale,
            **eps_terms(eps, eps_root, eps_mode, nu_scale),
        }

    def rule(g, mu, nu, *, mu_scale, nu_scale, outside, inside):
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        root = jnp.sqrt(nu_scale * nu + inside) + outside
        mu = b1 * mu + (1 - b1) * ratio(g, root, eps, eps_root)
        return mu_scale * mu, mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByLapropState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def laprop(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-15,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    nu_dtype: StorageDtype | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """LaProp: Adam that normalizes gradients before it averages them.

        p <- p - learning_rate (m / (1 - b1^t) + weight_decay p)

    Each gradient is divided by the second moment of its own step, so every pair of
    decays is stable. This is the algorithm of the paper. The authors' code and
    pytorch_optimizer apply a scheduled learning rate before the average, and decay
    after the step.

    Args:
      learning_rate: Step size, >= 0; the authors use 4e-4.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_laprop`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      nu_dtype, eps_mode: See `scale_by_laprop`.

    Returns:
      A transformation that needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Ziyin, Wang & Ueda, "LaProp", 2020.

    >>> import jopt
    >>> jopt.laprop(4e-4, weight_decay=0.1)
    laprop(learning_rate=0.0004, weight_decay=0.1)
    """
    return chain(
        scale_by_laprop(
            b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype, eps_mode=eps_mode
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
