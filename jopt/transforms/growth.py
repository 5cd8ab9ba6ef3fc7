"""Norm growth: an update is at most a little larger than the one before."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class LimitNormGrowthState(NamedTuple):
    """State of `limit_norm_growth`."""

    norm: Any  # of the update before, one number per leaf


@transformation
def limit_norm_growth(max_growth: ScalarOrSchedule = 1.01) -> GradientTransformation:
    """Bound each leaf's norm by that of the step before.

        u <- g min(1, max_growth |u_before| / |g|)

    Not in the first step, and not after a step whose update was zero. inf or NaN in a
    leaf make all of it NaN, and leave the norm that is kept as it is.

    Args:
      max_growth: The bound of |u| / |u_before|, > 0; it is above 1, or nothing grows.

    Returns:
      A transformation with a number per leaf as its state; put it behind the
      ``scale_by_*``, before weight decay and learning rate.

    Raises:
      ValueError: The bound is not positive.

    Chen et al., "Fira: can we achieve full-rank training of LLMs under low-rank
    constraint?", 2024, which limits the part of its update outside of the subspace;
    APOLLO limits all of it. They add 1e-8 to the norm before, so that after a zero
    gradient the updates grow from 1e-8 on by 1% a step.

    >>> import jopt
    >>> tx = jopt.limit_norm_growth(1.5)
    >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([30.0, 40.0]), state)[0].round(4)
    Array([4.5, 6. ], dtype=float32)
    """
    arguments.positive(max_growth=max_growth)

    def rule(g, before):
        norm = tree.norm_along(g, None)
        bound = max_growth * before
        grows = (before > 0) & (norm > bound)
        factor = jnp.where(grows, bound / jnp.where(grows, norm, 1), 1)
        finite = jnp.isfinite(norm)
        return (
            jnp.where(finite, factor, jnp.nan) * g,
            jnp.where(finite, factor * norm, before),
        )

    norm = zeros(real=True, over=lambda shape: tuple(range(len(shape))))
    return leafwise(rule, state=LimitNormGrowthState, norm=norm)
