"""AdEMAMix: Adam with a second, very slow average of the gradients.

    m1 <- b1 m1 + (1 - b1) g
    m2 <- b3 m2 + (1 - b3) g            no bias correction: it fills slowly
    v  <- b2 v + (1 - b2) g^2
    u  <- (m1^ + alpha m2) / (sqrt(v^) + eps)

Pagliardini, Ablin & Grangier, "The AdEMAMix optimizer: better, faster, older", 2024.
State: 12 bytes per float32 parameter. For long trainings, use b3 = 0.9999, an alpha of
5 to 8, and both warmups as long as the training.
"""

from __future__ import annotations

import math
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
from jopt.tree import abs_sq, one_minus_power, ratio, scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAdemamixState(NamedTuple):
    """State of `scale_by_ademamix`."""

    count: jax.Array  # int32 scalar, updates so far
    m1: Any  # fast average, like params
    m2: Any  # slow average, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_ademamix(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    b3_warmup: int | None = None,
    alpha_warmup: int | None = None,
    m2_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Rescale a fast and a slow average: ``u <- (m1^ + alpha m2) / (sqrt(v^) + eps)``.

    Args:
      b1: Decay of the fast average, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      b3: Decay of the slow average, in [0, 1).
      alpha: Weight of the slow average, >= 0. optax's default is 6.0 for
        ``scale_by_ademamix`` and 5.0 for ``ademamix``.
      eps: Added to the square root, >= 0.
      eps_root: Added under the square root, >= 0.
      mu_dtype: Storage dtype of ``m1``; None means float32 or wider.
      b3_warmup: Number of steps, >= 1, in which the half-life of the slow average grows
        linearly from the value for ``b1`` to the value for ``b3``; None means no
        warmup.
      alpha_warmup: Number of steps, >= 1, in which ``alpha`` grows linearly from zero;
        None means no warmup.
      m2_dtype: Storage dtype of ``m2``; None means float32 or wider. In bfloat16, a
        decay of 0.9999 is lost to rounding.
      nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Pagliardini, Ablin & Grangier, "The AdEMAMix optimizer", 2024, algorithm 1.

    >>> import jopt
    >>> tx = jopt.scale_by_ademamix(b3=0.5, alpha=2.0)
    >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(4)
    Array([2.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, "after")
    arguments.decay_rate(b3=b3)
    arguments.nonnegative(alpha=alpha)
    if b3_warmup is not None:
        arguments.at_least(1, b3_warmup=b3_warmup)
    if alpha_warmup is not None:
        arguments.at_least(1, alpha_warmup=alpha_warmup)

    def scalars(t):
        alpha_t = scalar(alpha)
        if alpha_warmup is not None:
            alpha_t = alpha_t * jnp.minimum(t / alpha_warmup, 1)
        m2_decay, g_weight = scalar(b3), scalar(1 - b3)
        if b3_warmup is not None:
            # Linear in the half-life, which is -log(2) / log(decay) steps.
            share = jnp.minimum(t / b3_warmup, 1)
            log_decay = 1 / ((1 - share) / _log(b1) + share / _log(b3))
            # expm1 because 1 - decay would cancel for decays close to 1.
            m2_decay, g_weight = jnp.exp(log_decay), -jnp.expm1(log_decay)
        return {
            "alpha_t": alpha_t,
            "m2_decay": m2_decay,
            "g_weight": g_weight,
            "m1_scale": 1 / one_minus_power(b1, t),
            "nu_scale": 1 / one_minus_power(b2, t),
        }

    def rule(g, m1, m2, nu, *, alpha_t, m2_decay, g_weight, m1_scale, nu_scale):
        m1 = b1 * m1 + (1 - b1) * g
        m2 = m2_decay * m2 + g_weight * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        root = jnp.sqrt(nu_scale * nu + eps_root) + eps
        return ratio(m1_scale * m1 + alpha_t * m2, root, eps, eps_root), m1, m2, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAdemamixState,
        m1=zeros(mu_dtype),
        m2=zeros(m2_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


def _log(decay: Any) -> Any:
    # In float32, the logarithm of 0.9999 has only three correct digits.
    is_constant = isinstance(decay, float) and decay > 0
    return math.log(decay) if is_constant else jnp.log(decay)


@transformation
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    b3_warmup: int | None = None,
    alpha_warmup: int | None = None,
    m2_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """AdEMAMix: Adam that remembers tens of thousands of steps.

    Matches the authors' code with its warmups, and optax, which has no warmups and
    stores all three averages in ``mu_dtype``.

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, b3, alpha, eps, eps_root, mu_dtype: See `scale_by_ademamix`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      b3_warmup, alpha_warmup, m2_dtype, nu_dtype: See `scale_by_ademamix`.

    Returns:
      A transformation; it needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Pagliardini, Ablin & Grangier, "The AdEMAMix optimizer", 2024.

    >>> import jopt
    >>> jopt.ademamix(1e-3, alpha=8.0, b3_warmup=100_000, alpha_warmup=100_000)
    ademamix(learning_rate=0.001, alpha=8.0, b3_warmup=100000, alpha_warmup=100000)
    """
    return chain(
        scale_by_ademamix(
            b1,
            b2,
            b3,
            alpha,
            eps,
            eps_root,
            mu_dtype,
            b3_warmup=b3_warmup,
            alpha_warmup=alpha_warmup,
            m2_dtype=m2_dtype,
            nu_dtype=nu_dtype,
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
