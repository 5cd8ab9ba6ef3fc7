"""MADGRAD: dual averaging with cube roots, and momentum.

    c  <- (learning_rate + eps) sqrt(t)
    G  <- G + c g^2
    s  <- s + c g
    z  <- x0 - s / (cbrt(G) + eps)
    p  <- momentum p + (1 - momentum) z

Defazio & Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual
averaged gradient method for stochastic optimization", 2021.

State: 12 bytes per float32 parameter, x0 is the parameters at the start. It needs less
weight decay than others, often none, and a learning rate of its own: 1e-3 to 1e-2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import abs_sq
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class MadgradState(NamedTuple):
    """State of `scale_by_madgrad`."""

    count: jax.Array  # int32 scalar, updates so far
    grad_sum_sq: Any  # weighted sum of the squared gradients, like params, real
    s: Any  # weighted sum of the gradients, like params
    x0: Any  # the parameters that it started at, like params


@transformation
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    *,
    grad_sum_sq_dtype: StorageDtype | None = None,
    s_dtype: StorageDtype | None = None,
    x0_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """MADGRAD without weight decay; the update is the whole step, its sign included.

    Args:
      learning_rate: The step size, >= 0.
      momentum: The share of the old parameter in the new one, in [0, 1).
      eps: Added to the cube root, and to the learning rate unless that is zero, >= 0.
      grad_sum_sq_dtype: What ``grad_sum_sq`` is stored in.
      s_dtype: What ``s`` is stored in.
      x0_dtype: What ``x0`` is stored in.

    Returns:
      A transformation; it needs params, and has to be the last of a chain.

    Raises:
      ValueError: A number is out of its range.

    Defazio & Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual
    averaged gradient method for stochastic optimization", 2021.

    >>> import jopt
    >>> tx, params = jopt.scale_by_madgrad(1.0, 0.0, 0.0), jnp.array([5.0])
    >>> tx.update(jnp.array([8.0]), tx.init(params), params)[0].round(4)
    Array([-2.], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, eps=eps)
    arguments.decay_rate(momentum=momentum)

    def scalars(t):
        rate = jnp.where(learning_rate == 0, 0.0, learning_rate + eps)
        return {"weight": rate * jnp.sqrt(t)}

    def rule(g, power, s, x0, *, p, weight):
        power = power + weight * abs_sq(g)
        s = s + weight * g
        root = jnp.cbrt(power) + eps
        z = x0 - s / jnp.where(root == 0, 1, root)
        return (1 - momentum) * (z - p), power, s, x0

    return leafwise(
        rule,
        scalars,
        MadgradState,
        grad_sum_sq=zeros(grad_sum_sq_dtype, real=True),
        s=zeros(s_dtype),
        x0=copied(x0_dtype),
    )


@transformation
def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-6,
    *,
    mask: Mask = None,
    grad_sum_sq_dtype: StorageDtype | None = None,
    s_dtype: StorageDtype | None = None,
    x0_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """MADGRAD: ``p <- momentum p + (1 - momentum) (x0 - s / (cbrt(G) + eps))``.

    Args:
      learning_rate: The step size, >= 0.
      momentum: The share of the old parameter in the new one, in [0, 1).
      weight_decay: >= 0, part of the gradient.
      eps: Added to the cube root, and to the learning rate unless that is zero, >= 0.
      mask: The leaves to decay; see `add_decayed_weights`.
      grad_sum_sq_dtype: What ``grad_sum_sq`` is stored in.
      s_dtype: What ``s`` is stored in.
      x0_dtype: What ``x0`` is stored in.

    Returns:
      A transformation; it needs params, and has to be the last of a chain.

    Raises:
      ValueError: A number is out of its range.

    Defazio & Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual
    averaged gradient method for stochastic optimization", 2021. As the authors' code,
    and as optax, whose learning rate of zero still makes steps of eps.

    >>> import jopt
    >>> jopt.madgrad(1e-2)
    madgrad(learning_rate=0.01)
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_madgrad(
            learning_rate,
            momentum,
            eps,
            grad_sum_sq_dtype=grad_sum_sq_dtype,
            s_dtype=s_dtype,
            x0_dtype=x0_dtype,
        ),
    )
