"""Fromage: steps relative to the norm of a leaf that do not let the norm grow.

    u <- g |p| / |g|
    p <- (p - learning_rate u) / sqrt(1 + learning_rate^2)

Bernstein, Vahdat, Yue & Liu, "On the distance between two neural networks and the
stability of learning", 2020.

State: none. The learning rate is the relative size of a step: 0.01 is typical; divide
it by ten when the loss stalls. The norms are taken over whole leaves.
"""

from __future__ import annotations

import jax.numpy as jnp

from jopt.core.chain import optimizer
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation
from jopt.transforms.gradients import trust_ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@optimizer
def fromage(
    learning_rate: ScalarOrSchedule, min_norm: ScalarOrSchedule = 1e-6
) -> GradientTransformation:
    """Fromage: ``p <- (p - learning_rate g |p| / |g|) / sqrt(1 + learning_rate^2)``.

    Args:
      learning_rate: Size of a step relative to the parameters, >= 0; 0.01 is typical.
      min_norm: Lower bound on both norms, >= 0. With 0, a leaf that is all zeros takes
        a plain gradient step.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is negative.

    Bernstein, Vahdat, Yue & Liu, "On the distance between two neural networks and the
    stability of learning", 2020. Matches optax; with ``min_norm=0``, the authors' code.

    >>> import jopt
    >>> tx, params = jopt.fromage(0.75), jnp.array([3.0, 4.0])
    >>> updates, _ = tx.update(jnp.array([0.0, 1.0]), tx.init(params), params)
    >>> [f"{x:.3f}" for x in params + updates]
    ['2.400', '0.200']
    """
    arguments.nonnegative(learning_rate=learning_rate, min_norm=min_norm)

    def scalars():
        root = jnp.sqrt(1 + jnp.square(learning_rate))
        # This is 1 - 1 / root, which would lose all digits at a small learning rate.
        shrinkage = jnp.square(learning_rate) / (root * (root + 1))
        return {"rate": learning_rate / root, "shrinkage": shrinkage}

    def rule(g, *, p, rate, shrinkage):
        return -rate * trust_ratio(g, p, min_norm=min_norm) * g - shrinkage * p

    return leafwise(rule, scalars)
