"""Adamax: Adam with the infinity norm.

    m <- b1 m + (1 - b1) g
    v <- max(b2 v, |g|)
    u <- m / (1 - b1^t) / v

`adamax`   Kingma & Ba, "Adam: a method for stochastic optimization", 2015, section 7.1
`adamaxw`  with decoupled weight decay

State: 8 bytes per float32 parameter. A learning rate of 2e-3 is the paper's.
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
from jopt.tree import one_minus_power
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
    """Rescale by the decayed maximum: ``u <- m^ / v``.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the maximum, in [0, 1).
      eps: Keeps the division from zero, > 0.
      mu_dtype: What ``mu`` is stored in.
      nu_dtype: What ``nu`` is stored in.
      eps_in_max: Whether eps is added to ``|g|`` within the maximum (optax, torch), or
        to the divisor (Keras).

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

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
            divisor = nu = jnp.maximum(b2 * nu, jnp.abs(g) + eps)
        else:
            nu = jnp.maximum(b2 * nu, jnp.abs(g))
            divisor = nu + eps
        return mu_scale * mu / divisor, mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAdamaxState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True),
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
    """Adamax: ``p <- p - learning_rate m^ / v`` with v a decayed maximum.

    Args:
      learning_rate: The step size, >= 0.
      b1: See `scale_by_adamax`, as for the other arguments.
      b2: Decay of the maximum.
      eps: Keeps the division from zero.
      mu_dtype: What ``mu`` is stored in.
      nu_dtype: What ``nu`` is stored in.
      eps_in_max: True for optax's and torch's place of eps, False for Keras's.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

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
    """Adamax with decoupled weight decay.

        p <- p - learning_rate (m^ / v + weight_decay p)

    Args:
      learning_rate: The step size, >= 0.
      b1: See `scale_by_adamax`.
      b2: See `scale_by_adamax`.
      eps: See `scale_by_adamax`.
      weight_decay: >= 0, multiplied by the learning rate.
      mask: The leaves to decay; see `add_decayed_weights`.
      mu_dtype: What ``mu`` is stored in.
      nu_dtype: What ``nu`` is stored in.
      eps_in_max: True for optax's and torch's place of eps, False for Keras's.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range.

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
