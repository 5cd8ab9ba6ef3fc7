"""COCOB: bet on the sign of each gradient; the winnings set the step.

    L <- max(L, |g|)                       largest gradient so far
    G <- G + |g|
    R <- max(R - g (w - w_1), 0)           winnings so far
    C <- C - g
    w <- w_1 + C / (L max(G + L, alpha L)) (L + R)

Orabona & Tommasi, "Training deep networks without learning rates through coin betting",
2017.

State: 20 bytes per float32 parameter. There is no learning rate, and the scale of the
gradients does not matter. Use it when there is nothing to tune a learning rate on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByCocobState(NamedTuple):
    """State of `scale_by_cocob`."""

    init_particles: Any  # w_1, like params
    cumulative_gradients: Any  # C, like params
    scale: Any  # L, like params
    subgradients: Any  # G, like params
    reward: Any  # R, like params


@transformation
def scale_by_cocob(
    alpha: ScalarOrSchedule = 100.0,
    eps: ScalarOrSchedule = 1e-8,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Step from each parameter to where its bets lead.

    It takes gradients and returns steps with their final sign, so put it last in a
    chain.

    Args:
      alpha: One over the size of the first bets, > 0.
      eps: Lower bound on the largest gradient ``L``, > 0.
      param_dtype: Storage dtype of ``init_particles``; None means float32 or wider.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: ``alpha`` or ``eps`` is not positive.
      TypeError: A leaf is complex.

    Orabona & Tommasi, "Training deep networks without learning rates through coin
    betting", 2017, algorithm 2.

    >>> import jopt
    >>> tx, params = jopt.scale_by_cocob(), jnp.ones(2)
    >>> tx.update(jnp.array([3.0, -1e-4]), tx.init(params), params)[0].round(4)
    Array([-0.01,  0.01], dtype=float32)
    """
    arguments.positive(alpha=alpha, eps=eps)

    def rule(g, start, cumulative, largest, size_sum, reward, *, p):
        size = jnp.abs(g)
        largest = jnp.maximum(jnp.maximum(largest, size), eps)
        size_sum = size_sum + size
        reward = jnp.maximum(reward - g * (p - start), 0)
        cumulative = cumulative - g
        bet = ratio(cumulative, jnp.maximum(size_sum + largest, alpha * largest), eps)
        # Only ratios of gradients enter, so their scale cancels.
        target = start + bet * (1 + ratio(reward, largest, eps))
        return target - p, start, cumulative, largest, size_sum, reward

    return leafwise(
        rule,
        state=ScaleByCocobState,
        real_only=True,
        init_particles=copied(param_dtype),
        cumulative_gradients=zeros(),
        scale=zeros(divides=True),
        subgradients=zeros(),
        reward=zeros(),
    )


@transformation
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: ScalarOrSchedule = 100.0,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """COCOB: coin betting, without a learning rate.

    Args:
      learning_rate: Factor for the gradients, >= 0. A constant changes nothing; a
        schedule weights the steps.
      alpha, eps: See `scale_by_cocob`.
      weight_decay: Strength of the L2 penalty, >= 0: ``weight_decay p`` is added to the
        gradient.
      mask: See `add_decayed_weights`.
      param_dtype: See `scale_by_cocob`.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of range.
      TypeError: A leaf is complex.

    Orabona & Tommasi, "Training deep networks without learning rates through coin
    betting", 2017. Matches algorithm 2 of the paper, and optax.

    >>> import jopt
    >>> jopt.cocob(weight_decay=1e-4)
    cocob(weight_decay=0.0001)
    """
    # The bets determine the whole step, so the learning rate weights gradients instead.
    return chain(
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps, param_dtype=param_dtype),
    )
