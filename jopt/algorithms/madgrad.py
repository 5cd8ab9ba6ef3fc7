"""MADGRAD: dual averaging with cube roots and momentum.

    c  <- (learning_rate + eps) sqrt(t)
    G  <- G + c g^2
    s  <- s + c g
    z  <- x0 - s / (cbrt(G) + eps)
    p  <- momentum p + (1 - momentum) z

Defazio & Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual
averaged gradient method for stochastic optimization", 2021.

State: 12 bytes per float32 parameter; x0 holds the initial parameters. It needs less
weight decay than other optimizers, often none, and its learning rate must be tuned
anew: 1e-3 to 1e-2.
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
    x0: Any  # initial parameters, like params


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
    """MADGRAD without weight decay; its update is the complete step, sign included.

    Args:
      learning_rate: Step size, >= 0.
      momentum: Weight of the old parameter in the new one, in [0, 1).
      eps: Added to the cube root and to every learning rate but zero, >= 0.
      grad_sum_sq_dtype: Storage dtype of ``grad_sum_sq``; None means float32 or wider.
      s_dtype: Storage dtype of ``s``; None means float32 or wider.
      x0_dtype: Storage dtype of ``x0``; None means float32 or wider.

    Returns:
      A transformation that needs params and must be the last of a chain. A complex
      number counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

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
        # A learning rate of zero must give no step, not one of eps.
        rate = jnp.where(learning_rate == 0, 0.0, learning_rate + eps)
        return {"weight": rate * jnp.sqrt(t)}

    def rule(g, sum_sq, s, x0, *, p, weight):
        sum_sq = sum_sq + weight * abs_sq(g)
        s = s + weight * g
        root = jnp.cbrt(sum_sq) + eps
        # With eps = 0 the root is zero until the first gradient, and so is s.
        z = x0 - s / jnp.where(root == 0, 1, root)
        return (1 - momentum) * (z - p), sum_sq, s, x0

    return leafwise(
        rule,
        scalars,
        MadgradState,
        grad_sum_sq=zeros(grad_sum_sq_dtype, real=True, divides=True),
        s=zeros(s_dtype, exact=True),
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

    Dual averaging: each step starts from the initial point ``x0`` and the weighted sums
    ``s`` and ``G`` of all gradients and their squares. It needs less weight decay than
    other optimizers, often none.

    Args:
      learning_rate: Step size, >= 0; 1e-3 to 1e-2 is usual.
      momentum: See `scale_by_madgrad`.
      weight_decay: Decay that is added to the gradient, >= 0.
      eps: See `scale_by_madgrad`.
      mask: See `add_decayed_weights`.
      grad_sum_sq_dtype, s_dtype, x0_dtype: See `scale_by_madgrad`.

    Returns:
      A transformation that needs params and must be the last of a chain. A complex
      number counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Defazio & Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual
    averaged gradient method for stochastic optimization", 2021. Equal to the authors'
    code, and to optax, which still steps by eps when the learning rate is zero.

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
