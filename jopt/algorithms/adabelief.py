"""AdaBelief: divide by how far gradients stray from their moving average.

    m <- b1 m + (1 - b1) g
    s <- b2 s + (1 - b2) (g - m)^2 + eps_root
    u <- m^ / (sqrt(s^) + eps)

Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed
gradients", 2020. State: 8 bytes per float32 parameter. Settings as for Adam; the
authors use an eps of 1e-16 for transformers and GANs, 1e-8 for convolutional networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import check_adam, momentum_terms
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


class ScaleByBeliefState(NamedTuple):
    """State of `scale_by_belief`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # mean square of g - m, like params, real


@transformation
def scale_by_belief(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Rescale by the belief in the gradient: ``u <- m^ / (sqrt(s^) + eps)``.

    Args:
      b1: Decay of the first moment, in (0, 1).
      b2: Decay of the mean square ``s``, in [0, 1).
      eps: Added to the square root, >= 0.
      eps_root: Added to ``s`` at every step, >= 0, so it accumulates.
      nesterov, mu_dtype, nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Zhuang et al., "AdaBelief optimizer", 2020, algorithm 2.

    >>> import jopt
    >>> tx = jopt.scale_by_belief(b1=0.8)
    >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(4)  # g / (b1 g)
    Array([1.25], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, "after")
    arguments.positive(b1=b1)  # b1 = 0 makes m equal to g, and s zero

    def scalars(t):
        nu_scale = 1 / one_minus_power(b2, t)
        return {"nu_scale": nu_scale, **momentum_terms(b1, t, nesterov)}

    def rule(g, mu, nu, *, mu_scale, g_scale, nu_scale):
        mu = b1 * mu + (1 - b1) * g
        # With the new mu, as in the paper; the old one would give (g - mu) / b1.
        nu = b2 * nu + (1 - b2) * abs_sq(g - mu) + eps_root
        mu_hat = mu_scale * mu + g_scale * g if nesterov else mu_scale * mu
        return ratio(mu_hat, jnp.sqrt(nu_scale * nu) + eps, eps, eps_root), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByBeliefState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    *,
    nesterov: bool = False,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """AdaBelief: large steps where the gradient is as predicted.

    Matches optax, and the authors' code without rectification, whose single eps sets
    both ``eps`` and ``eps_root``.

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, eps, eps_root: See `scale_by_belief`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate.
      weight_decay_mask: The leaves to decay, in any form of `jopt.Mask`.
      nesterov, mu_dtype, nu_dtype: See `scale_by_belief`.

    Returns:
      A transformation; it needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Zhuang et al., "AdaBelief optimizer", 2020.

    >>> import jopt
    >>> jopt.adabelief(1e-3, eps=1e-8, eps_root=1e-8)
    adabelief(learning_rate=0.001, eps=1e-08, eps_root=1e-08)
    """
    return chain(
        scale_by_belief(
            b1,
            b2,
            eps,
            eps_root,
            nesterov=nesterov,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        *decoupled_decay(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
