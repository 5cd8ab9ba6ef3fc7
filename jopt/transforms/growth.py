"""Norm growth: let an update be only a little larger than the previous one."""

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

    norm: Any  # norm of the previous update, one number per leaf


@transformation
def limit_norm_growth(max_growth: ScalarOrSchedule = 1.01) -> GradientTransformation:
    """Bound each leaf's norm relative to its previous norm.

        u <- g min(1, max_growth |u_before| / |g|)

    The bound does not apply to the first step or after a zero update. An inf or NaN in
    a leaf makes the whole leaf NaN and leaves the stored norm unchanged.

    Args:
      max_growth: Upper bound of ``|u| / |u_before|``, > 0; use a value above 1, or
        updates never grow.

    Returns:
      A transformation whose state is one number per leaf. Put it after the
      ``scale_by_*`` and before weight decay and learning rate.

    Raises:
      ValueError: ``max_growth`` is not positive.

    Chen et al., "Fira: can we achieve full-rank training of LLMs under low-rank
    constraint?", 2024, which limits the part of its update outside the subspace;
    APOLLO limits all of it. Both add 1e-8 to the previous norm, so after a zero
    gradient their updates grow from 1e-8 by 1% per step.

    >>> import jopt
    >>> tx = jopt.limit_norm_growth(1.5)
    >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([30.0, 40.0]), state)[0].round(4)
    Array([4.5, 6. ], dtype=float32)
    """
    arguments.positive(max_growth=max_growth)

    def rule(g, previous):
        norm = tree.norm_along(g, None)
        bound = max_growth * previous
        grows = (previous > 0) & (norm > bound)
        factor = jnp.where(grows, bound / jnp.where(grows, norm, 1), 1)
        finite = jnp.isfinite(norm)
        # The norm of the bounded update, not of g: growth compounds from step to step.
        return (
            jnp.where(finite, factor, jnp.nan) * g,
            jnp.where(finite, factor * norm, previous),
        )

    norm = zeros(real=True, over=lambda shape: tuple(range(len(shape))))
    return leafwise(rule, state=LimitNormGrowthState, norm=norm)
