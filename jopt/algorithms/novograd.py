"""NovoGrad: momentum of gradients that are normalized layer by layer.

    v <- b2 v + (1 - b2) |g|^2            one number for a leaf; |g|^2 at the first step
    m <- b1 m + g / (sqrt(v + eps_root) + eps) + weight_decay p
    p <- p - learning_rate m

Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for
training of deep networks", 2019.

State: 4 bytes per float32 parameter. For speech and language with large batches: a
learning rate of 0.01, b1 = 0.95, b2 = 0.98 (the paper) and a cosine decay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.tree import abs_sq, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByNovogradState(NamedTuple):
    """State of `scale_by_novograd`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # sum of the normalized gradients, like params
    nu: Any  # mean of the squared norm, one number for each leaf


@transformation
def scale_by_novograd(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.25,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide each leaf by the running norm of its gradient, and accumulate momentum.

        v <- b2 v + (1 - b2) |g|^2            |g|^2 at the first step
        u <- b1 u + g / (sqrt(v + eps_root) + eps) + weight_decay p

    Args:
      b1: Decay of the momentum, in [0, 1).
      b2: Decay of the mean squared norm, in [0, 1).
      eps: Added to the root, >= 0.
      eps_root: Added under the root, >= 0.
      weight_decay: Decay rate, >= 0; the decay enters the momentum.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for
    training of deep networks", 2019. Equal to optax.

    >>> import jopt
    >>> tx, params = jopt.scale_by_novograd(), jnp.zeros(2)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0]
    Array([0.6, 0.8], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.nonnegative(eps=eps, eps_root=eps_root, weight_decay=weight_decay)
    arguments.some_positive(eps=eps, eps_root=eps_root)

    def scalars(t):
        # The first norm fills the mean, so it needs no bias correction.
        first = t == 1
        return {
            "keep": jnp.where(first, jnp.zeros_like(t), b2),
            "take": jnp.where(first, jnp.ones_like(t), 1 - b2),
        }

    def rule(g, mu, nu, *, p, keep, take):
        nu = keep * nu + take * jnp.sum(abs_sq(g), keepdims=True)
        u = ratio(g, jnp.sqrt(nu + eps_root) + eps, eps, eps_root)
        mu = b1 * mu + u + weight_decay * p
        return mu, mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByNovogradState,
        treatment=Treatment(decay=(weight_decay,)),
        mu=zeros(mu_dtype),
        nu=zeros(real=True, over=lambda shape: tuple(range(len(shape))), divides=True),
    )


@transformation
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.25,
    eps: ScalarOrSchedule = 1e-6,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    mu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """NovoGrad: ``p <- p - learning_rate m`` with ``m`` a sum of normalized gradients.

    Adam with one second moment per layer: half of Adam's state, and steps that do not
    depend on the scale of a layer's gradients. For speech and language with large
    batches; the paper uses b1 = 0.95, b2 = 0.98 and a cosine decay.

    Args:
      learning_rate: Step size, >= 0; 0.01 in the paper.
      b1, b2, eps, eps_root, weight_decay, mu_dtype: See `scale_by_novograd`.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for
    training of deep networks", 2019. Equal to optax.

    >>> import jopt
    >>> jopt.novograd(0.01, 0.95, 0.98)
    novograd(learning_rate=0.01, b1=0.95, b2=0.98)
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay, mu_dtype),
        scale_by_learning_rate(learning_rate),
    )
