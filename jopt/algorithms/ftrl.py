"""FTRL-proximal: follow the regularized leader.

    n' <- n + g^2
    z  <- z + g - p (n'^a - n^a) / learning_rate             a = -learning_rate_power
    p  <- (clip(z, -l1, l1) - z) / (n'^a / learning_rate + 2 l2)

McMahan et al., "Ad click prediction: a view from the trenches", 2013. State: 8 bytes
per float32 parameter. Suited to sparse linear models: l1 makes weights exactly zero.
The parameters are a function of n and z alone, so the first step forgets their initial
values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import optimizer
from jopt.core.leafwise import full, leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class FtrlState(NamedTuple):
    """State of `ftrl`."""

    accumulator: Any  # n, sum of squares, like params
    linear: Any  # z, like params


@optimizer
def ftrl(
    learning_rate: ScalarOrSchedule,
    learning_rate_power: ScalarOrSchedule = -0.5,
    initial_accumulator_value: float = 0.1,
    l1: ScalarOrSchedule = 0.0,
    l2: ScalarOrSchedule = 0.0,
    l2_shrinkage: ScalarOrSchedule = 0.0,
    beta: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """FTRL-proximal, with Keras's options and numbers.

    Args:
      learning_rate: The step size, > 0 at every step, because the rule divides by it.
      learning_rate_power: Minus the exponent of the sum of squares, <= 0; -0.5 is
        Adagrad's square root, 0 a constant rate.
      initial_accumulator_value: Initial value of the sum of squares, >= 0.
      l1: Strength of the L1 penalty, >= 0.
      l2: Strength of the L2 penalty, >= 0.
      l2_shrinkage: Strength of an L2 penalty on the gradient only, >= 0:
        ``g + 2 l2_shrinkage p``.
      beta: The paper's smoothing of the learning rate, >= 0: adds
        ``beta / (2 learning_rate)`` to ``l2``.

    Returns:
      A transformation, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range.

    McMahan et al., "Ad click prediction: a view from the trenches", 2013.

    >>> import jopt
    >>> tx, params = jopt.ftrl(0.1, l1=0.5), jnp.array([1.0, 1.0])
    >>> updates, _ = tx.update(jnp.array([0.1, 5.0]), tx.init(params), params)
    >>> jopt.apply_updates(params, updates)[0]
    Array(0., dtype=float32)
    """
    arguments.positive(learning_rate=learning_rate)
    arguments.nonnegative(
        initial_accumulator_value=initial_accumulator_value,
        l1=l1,
        l2=l2,
        l2_shrinkage=l2_shrinkage,
        beta=beta,
    )
    arguments.nonpositive(learning_rate_power=learning_rate_power)

    def rule(g, n, z, *, p):
        new_n = n + g * g
        root = new_n**-learning_rate_power
        z = z + g + 2 * l2_shrinkage * p
        z = z - ratio(root - n**-learning_rate_power, learning_rate, learning_rate) * p
        q = ratio(root + beta, learning_rate, learning_rate) + 2 * l2
        # q is zero only if nothing has been accumulated: the weight stays zero too.
        new_p = jnp.where(q > 0, (jnp.clip(z, -l1, l1) - z) / jnp.where(q > 0, q, 1), 0)
        # Once the squares have overflowed, new_p means nothing: do not move.
        return jnp.where((q < jnp.inf) & (learning_rate > 0), new_p - p, 0), new_n, z

    return leafwise(
        rule,
        state=FtrlState,
        real_only=True,
        accumulator=full(initial_accumulator_value, divides=True),
        linear=zeros(),
    )
