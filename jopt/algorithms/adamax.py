"""Adamax: Adam with the infinity norm.

    m <- b1 m + (1 - b1) g
    v <- max(b2 v, |g|)
    u <- m / (1 - b1^t) / v

`adamax`   Kingma & Ba, "Adam: a method for stochastic optimization", 2015, section 7.1
`adamaxw`  with decoupled weight decay

State: 8 bytes per float32 parameter. The paper's learning rate is 2e-3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAdamaxState(NamedTuple):
    """State of `scale_by_adamax`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # decayed maximum of |g|, like params, real


@transformation
def scale_by_adamax(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    *,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_in_max: bool = True,
) -> GradientTransformation:
    """Divide the first moment by a decayed maximum: ``u <- m^ / v``.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the maximum, in [0, 1).
      eps: Keeps the divisor positive, > 0.
      mu_dtype, nu_dtype: See `scale_by_adam`.
      eps_in_max: Whether to add ``eps`` to ``|g|`` inside the maximum (optax, torch);
        False adds it to the divisor (Keras).

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: ``b1`` or ``b2`` is outside [0, 1), or ``eps`` is not positive.

    Kingma & Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2.

    >>> import jopt
    >>> tx = jopt.scale_by_adamax()
    >>> tx.update(jnp.array([0.5]), tx.init(jnp.zeros(1)))[0].round(6)
    Array([1.], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(eps=eps)

    def scalars(t):
        return {"mu_scale": 1 / one_minus_power(b1, t)}

    def rule(g, mu, nu, *, mu_scale):
        mu = b1 * mu + (1 - b1) * g
        if eps_in_max:
            # eps enters the stored maximum, so it decays with it.
            divisor = nu = jnp.maximum(b2 * nu, jnp.abs(g) + eps)
        else:
            nu = jnp.maximum(b2 * nu, jnp.abs(g))
            divisor = nu + eps
        return ratio(mu_scale * mu, divisor, eps), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAdamaxState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def adamax(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    *,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_in_max: bool = True,
) -> GradientTransformation:
    """Adamax: ``p <- p - learning_rate m^ / v``, with v a decayed maximum of ``|g|``.

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, eps, mu_dtype, nu_dtype, eps_in_max: See `scale_by_adamax`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Kingma & Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2.

    >>> import jopt
    >>> jopt.adamax(2e-3)
    adamax(learning_rate=0.002)
    """
    return chain(
        scale_by_adamax(
            b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype, eps_in_max=eps_in_max
        ),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_in_max: bool = True,
) -> GradientTransformation:
    """AdamaxW: Adamax with decoupled weight decay.

        p <- p - learning_rate (m^ / v + weight_decay p)

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, eps: See `scale_by_adamax`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      mu_dtype, nu_dtype, eps_in_max: See `scale_by_adamax`.

    Returns:
      A transformation; it needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jopt
    >>> jopt.adamaxw(2e-3, weight_decay=0.1)
    adamaxw(learning_rate=0.002, weight_decay=0.1)
    """
    return chain(
        scale_by_adamax(
            b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype, eps_in_max=eps_in_max
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
