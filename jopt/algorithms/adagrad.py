"""Adagrad: divide by the root of the sum of all squared gradients.

    s <- s + g^2
    u <- g / sqrt(s + eps)

Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic
optimization", 2011. State: 4 bytes per float32 parameter. Suited to sparse features,
with a learning rate of 0.01 to 0.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import full, leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByRssState(NamedTuple):
    """State of `scale_by_rss`."""

    sum_of_squares: Any  # like params, real


@transformation
def scale_by_rss(
    initial_accumulator_value: float = 0.1,
    eps: ScalarOrSchedule = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide by the root of the sum of squares: ``u <- g / sqrt(s + eps)``.

    The update is 0 where the sum is 0.

    Args:
      initial_accumulator_value: Initial value of the sum, >= 0.
      eps: Keeps the divisor positive, >= 0.
      eps_in_sqrt: Whether to add ``eps`` under the square root (optax, Keras); False
        adds it to the root (torch).
      accumulator_dtype: Storage dtype of ``sum_of_squares``; None means float32 or
        wider.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: ``initial_accumulator_value`` or ``eps`` is negative.

    Duchi, Hazan & Singer, 2011.

    >>> import jopt
    >>> tx = jopt.scale_by_rss(initial_accumulator_value=0.0)
    >>> tx.update(jnp.array([2.0, 0.0]), tx.init(jnp.zeros(2)))[0]
    Array([1., 0.], dtype=float32)
    """
    arguments.nonnegative(initial_accumulator_value=initial_accumulator_value, eps=eps)

    def rule(g, s):
        s = s + abs_sq(g)
        # Replacing zeros before the root keeps 1 / root and its derivative finite.
        nonzero = s > 0
        positive = jnp.where(nonzero, s, 1)
        root = jnp.sqrt(positive + eps) if eps_in_sqrt else jnp.sqrt(positive) + eps
        return jnp.where(nonzero, 1 / root, 0) * g, s

    fill = full(initial_accumulator_value, accumulator_dtype, real=True, divides=True)
    return leafwise(rule, state=ScaleByRssState, sum_of_squares=fill)


@transformation
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: float = 0.1,
    eps: ScalarOrSchedule = 1e-7,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    eps_in_sqrt: bool = True,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Adagrad: ``p <- p - learning_rate g / sqrt(sum of g^2 + eps)``.

    torch's numbers need ``initial_accumulator_value=0, eps=1e-10, eps_in_sqrt=False``.

    Args:
      learning_rate: The step size, >= 0.
      initial_accumulator_value, eps: See `scale_by_rss`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate;
        None means no decay.
      mask: See `add_decayed_weights`.
      eps_in_sqrt, accumulator_dtype: See `scale_by_rss`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is negative.

    Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", 2011.

    >>> import jopt
    >>> jopt.adagrad(0.1)
    adagrad(learning_rate=0.1)
    """
    return chain(
        scale_by_rss(
            initial_accumulator_value,
            eps,
            eps_in_sqrt=eps_in_sqrt,
            accumulator_dtype=accumulator_dtype,
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
