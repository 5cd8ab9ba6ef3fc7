"""RAdam: Adam that adapts only once it has seen enough gradients.

    m, v as in Adam
    rho_t <- rho_inf - 2 t b2^t / (1 - b2^t)        with rho_inf = 2 / (1 - b2) - 1
    r_t   <- sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t))
    u     <- r_t m^ / (sqrt(v^) + eps)  if rho_t >= threshold, else m^

Liu et al., "On the variance of the adaptive learning rate and beyond", 2020. State: 8
bytes per float32 parameter. It replaces a warmup: with b2 = 0.999 the first five steps
are those of SGD with momentum, and r_t is near 1 after about 2,000.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import EpsMode, check_adam, eps_terms, momentum_terms
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


class ScaleByRadamState(NamedTuple):
    """State of `scale_by_radam`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_radam(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    threshold: ScalarOrSchedule = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Rescale by Adam's moments, rectified: ``u <- r_t m^ / (sqrt(v^) + eps)``.

    Args:
      b1, b2, eps, eps_root: See `scale_by_adam`.
      threshold: The value of ``rho_t`` from which v is used, >= 4; above 4 in the
        paper, 5 in its authors' code. (torch compares with ``>``, not ``>=``, which
        matters only if ``rho_t`` is exactly 5.)
      nesterov, mu_dtype, nu_dtype: See `scale_by_adam`.
      eps_mode: ``"after"`` adds eps after the bias correction (optax), ``"before"``
        adds it before (torch, the authors); see `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.

    >>> import jopt
    >>> tx = jopt.scale_by_radam()
    >>> tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))[0].round(4)
    Array([ 2., -4.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, eps_mode)
    arguments.at_least(4, threshold=threshold)

    def scalars(t):
        nu_scale = 1 / one_minus_power(b2, t)
        length, longest = average_length(b2, t), 2 / (1 - b2) - 1
        share = (length - 4) * (length - 2) / length
        rectified = length >= jnp.maximum(threshold, 4)
        # The selects are inside the root: below a length of 4, r_t is not real.
        return {
            "rectified": jnp.where(rectified, 1.0, 0.0),
            "r": jnp.sqrt(
                jnp.where(rectified, share, 0)
                * longest
                / jnp.where(rectified, (longest - 4) * (longest - 2), 1)
            ),
            "nu_scale": nu_scale,
            **momentum_terms(b1, t, nesterov),
            **eps_terms(eps, eps_root, eps_mode, nu_scale),
        }

    def rule(g, mu, nu, *, rectified, r, mu_scale, g_scale, nu_scale, outside, inside):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        mu_hat = mu_scale * mu + g_scale * g if nesterov else mu_scale * mu
        factor = ratio(r, jnp.sqrt(nu_scale * nu + inside) + outside, eps, eps_root)
        return jnp.where(rectified > 0, factor, 1) * mu_hat, mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByRadamState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


def average_length(b2: Any, t: jax.Array) -> jax.Array:
    """Return rho_t, the length of a simple average with the variance of ``v^``.

    In the first steps ``rho_inf - 2 t b2^t / (1 - b2^t)`` is close to t, but it is the
    difference of two numbers near ``2 / (1 - b2)``, which cancel. With
    ``b2 = exp(-rate)`` and ``h(y) = (y / 2) coth(y / 2) - 1`` it equals
    ``t - 2 / rate (h(rate t) - h(rate))``, and the series of h keeps all digits.
    """
    # The logarithm of a constant is taken in double precision.
    is_constant = isinstance(b2, float) and b2 > 0
    rate = -math.log(b2) if is_constant else -jnp.log(b2)
    y = rate * t

    def series(y):  # 12 h(y) / y^2
        z = y * y
        return 1 - z / 60 * (1 - z / 42 * (1 - z / 40))

    early = t - (t * y * series(y) - rate * series(rate)) / 6
    later = 2 / (1 - b2) - 1 - 2 * t / jnp.expm1(y)
    return jnp.where(y < 0.05, early, later)


@transformation
def radam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    threshold: ScalarOrSchedule = 5.0,
    *,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """RAdam: Adam with a built-in warmup.

        p <- p - learning_rate (r_t m^ / (sqrt(v^) + eps) + weight_decay p)

    Until its second moment has seen enough gradients to be reliable, it steps like SGD
    with momentum. Then ``r_t`` rises to 1, after about 2,000 steps with b2 = 0.999.

    Args:
      learning_rate: Step size, >= 0, also of the first steps, which are not rescaled.
      b1, b2, eps, eps_root, threshold, nesterov: See `scale_by_radam`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      mu_dtype, nu_dtype, eps_mode: See `scale_by_radam`.

    Returns:
      A transformation that needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.

    >>> import jopt
    >>> jopt.radam(1e-3, eps_mode="before")
    radam(learning_rate=0.001, eps_mode='before')
    """
    return chain(
        scale_by_radam(
            b1,
            b2,
            eps,
            eps_root,
            threshold,
            nesterov=nesterov,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
            eps_mode=eps_mode,
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
