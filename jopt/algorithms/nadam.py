"""Nadam: Adam with Nesterov momentum.

    mu_t <- b1 (1 - 0.5 * 0.96^(momentum_decay t))         scheduled momentum
    m^   <- mu_(t+1) m / (1 - mu_1...mu_(t+1)) + (1 - mu_t) g / (1 - mu_1...mu_t)
    u    <- m^ / (sqrt(v^) + eps)

`nadam`   Dozat, "Incorporating Nesterov momentum into Adam", 2016
`nadamw`  with decoupled weight decay

State: 8 bytes per float32 parameter. Settings as for Adam and AdamW; torch's default
learning rate is 2e-3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import EpsMode, check_adam, eps_terms, scale_by_adam
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByNadamState(NamedTuple):
    """State of `scale_by_nadam`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real
    mu_product: jax.Array  # scalar, product of the scheduled momenta so far


@transformation
def scale_by_nadam(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    momentum_decay: ScalarOrSchedule = 1.0,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Rescale by Adam's moments with Dozat's scheduled Nesterov momentum.

    Args:
      b1: Decay of the first moment, and limit of the scheduled momentum, in [0, 1).
      b2, eps, eps_root, mu_dtype, nu_dtype: See `scale_by_adam`.
      momentum_decay: Rate at which the momentum approaches b1, >= 0: 1.0 in Keras,
        0.004 in torch.
      eps_mode: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    >>> import jopt
    >>> tx = jopt.scale_by_nadam()
    >>> float(tx.init(jnp.zeros(1)).mu_product)
    1.0
    """
    check_adam(b1, b2, eps, eps_root, eps_mode)
    arguments.nonnegative(momentum_decay=momentum_decay)

    def scheduled(t):
        return b1 * (1 - 0.5 * 0.96 ** (momentum_decay * t))

    def scalars(t, mu_product):
        now, ahead = scheduled(t), scheduled(t + 1)
        # The momentum changes with t, so its bias correction is a product, not a power.
        mu_product = mu_product * now
        nu_scale = 1 / one_minus_power(b2, t)
        return {
            "mu_product": mu_product,
            "mu_scale": ahead / (1 - mu_product * ahead),
            "g_scale": (1 - now) / (1 - mu_product),
            "nu_scale": nu_scale,
            **eps_terms(eps, eps_root, eps_mode, nu_scale),
        }

    def rule(g, mu, nu, *, mu_scale, g_scale, nu_scale, outside, inside):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        mu_hat = mu_scale * mu + g_scale * g
        root = jnp.sqrt(nu_scale * nu + inside) + outside
        return ratio(mu_hat, root, eps, eps_root), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByNadamState,
        carry={"mu_product": 1.0},
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    momentum_decay: ScalarOrSchedule | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Nadam: Adam with Nesterov momentum.

        p <- p - learning_rate m^ / (sqrt(v^) + eps)

    The first moment ``m^`` looks one step ahead: it includes the momentum of the next
    step already. Settings are those of Adam.

    Args:
      learning_rate: Step size, >= 0; torch's default is 2e-3.
      b1, b2, eps, eps_root, mu_dtype, nu_dtype: See `scale_by_adam`.
      momentum_decay: None keeps the momentum constant (optax). A number schedules it as
        Dozat does: 1.0 in Keras, 0.004 in torch.
      eps_mode: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    >>> import jopt
    >>> jopt.nadam(2e-3, momentum_decay=0.004)
    nadam(learning_rate=0.002, momentum_decay=0.004)
    """
    return chain(
        _nesterov_moments(
            b1, b2, eps, eps_root, mu_dtype, nu_dtype, momentum_decay, eps_mode
        ),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nu_dtype: StorageDtype | None = None,
    momentum_decay: ScalarOrSchedule | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Nadam with decoupled weight decay.

        p <- p - learning_rate (m^ / (sqrt(v^) + eps) + weight_decay p)

    Equal to optax; with ``momentum_decay=0.004``, to torch's NAdam with
    ``decoupled_weight_decay=True``.

    Args:
      learning_rate: Step size, >= 0.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_adam`.
      momentum_decay: See `nadam`.
      eps_mode: See `scale_by_adam`.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jopt
    >>> jopt.nadamw(2e-3, weight_decay=0.1)
    nadamw(learning_rate=0.002, weight_decay=0.1)
    """
    return chain(
        _nesterov_moments(
            b1, b2, eps, eps_root, mu_dtype, nu_dtype, momentum_decay, eps_mode
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _nesterov_moments(
    b1: Any,
    b2: Any,
    eps: Any,
    eps_root: Any,
    mu_dtype: Any,
    nu_dtype: Any,
    momentum_decay: Any,
    eps_mode: EpsMode,
) -> GradientTransformation:
    """Nesterov momentum, constant or with Dozat's schedule."""
    moments = (b1, b2, eps, eps_root, mu_dtype)
    if momentum_decay is None:
        return scale_by_adam(
            *moments, nu_dtype=nu_dtype, nesterov=True, eps_mode=eps_mode
        )
    return scale_by_nadam(
        *moments, nu_dtype=nu_dtype, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
