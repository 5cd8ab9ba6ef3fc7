"""Adam-atan2: Adam without an eps, invariant to the scale of the gradient.

    m, v as in Adam
    u <- a atan2(m^, b sqrt(v^))

Everett et al., "Scaling exponents across parameterizations and optimizers", 2024. Adam
stops normalizing gradients as small as its eps, which occur in wide models. Adam-atan2
always normalizes, and no element of an update exceeds a pi / 2. With a = 4 / pi and b =
1, a steady gradient gives 1 as in Adam. State: 8 bytes per float32 parameter.
Hyperparameters as for AdamW.
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
from jopt.tree import abs_sq, one_minus_power
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAdamAtan2State(NamedTuple):
    """State of `scale_by_adam_atan2`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_adam_atan2(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    a: ScalarOrSchedule = 1.27,
    b: ScalarOrSchedule = 1.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Rescale by Adam's moments without an eps: ``u <- a atan2(m^, b sqrt(v^))``.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      a: Scale of the update, > 0; 1.27 is 4 / pi.
      b: Where the arctangent bends, > 0. A large ``b`` approaches Adam times ``a / b``;
        a small one approaches the sign of the first moment times a pi / 2.
      mu_dtype, nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation. A complex update has the phase of its first moment.

    Raises:
      ValueError: A number is out of range.

    Everett et al., "Scaling exponents across parameterizations and optimizers", 2024.

    >>> import jopt
    >>> tx = jopt.scale_by_adam_atan2(a=1.0)
    >>> tx.update(jnp.array([1e-12, -5.0]), tx.init(jnp.zeros(2)))[0].round(4)
    Array([ 0.7854, -0.7854], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(a=a, b=b)

    def scalars(t):
        return {
            "mu_scale": 1 / one_minus_power(b1, t),
            "nu_scale": 1 / one_minus_power(b2, t),
        }

    def rule(g, mu, nu, *, mu_scale, nu_scale):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        # arctan2 takes real numbers: the size comes from |mu|, the phase from sign(mu).
        angle = jnp.arctan2(mu_scale * jnp.abs(mu), b * jnp.sqrt(nu_scale * nu))
        return a * angle * jnp.sign(mu), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAdamAtan2State,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def adam_atan2(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    a: ScalarOrSchedule = 1.27,
    b: ScalarOrSchedule = 1.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Adam-atan2, with decoupled weight decay.

        p <- p - learning_rate (a atan2(m^, b sqrt(v^)) + weight_decay p)

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, a, b, mu_dtype: See `scale_by_adam_atan2`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_adam_atan2`.

    Returns:
      A transformation; it needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Everett et al., "Scaling exponents across parameterizations and optimizers", 2024.
    Matches adam_atan2_pytorch's ``AdamAtan2``.

    >>> import jopt
    >>> jopt.adam_atan2(1e-3, weight_decay=0.1)
    adam_atan2(learning_rate=0.001, weight_decay=0.1)
    """
    return chain(
        scale_by_adam_atan2(b1, b2, a, b, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
