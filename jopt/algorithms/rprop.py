"""Rprop: a step size of its own for every element, from the signs of the gradients.

    s <- clip(s eta_plus,  min, max)      where g has the sign of the last step's g
    s <- clip(s eta_minus, min, max)      where it has the other; there g <- 0
    p <- p - s sign(g)

Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning: the
RPROP algorithm", 1993; without the way back after a change of sign, which is called
iRprop- (Igel & Hüsken, "Improving the Rprop learning algorithm", 2000).

State: 8 bytes per float32 parameter. For gradients of the whole data set: the noise of
batches changes signs too. It knows no learning rate but the size of its first steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import transformation
from jopt.core.leafwise import full, leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByRpropState(NamedTuple):
    """State of `scale_by_rprop`."""

    step_sizes: Any  # like params
    prev_updates: Any  # the last step's updates, like params; their signs matter


@transformation
def scale_by_rprop(
    learning_rate: float,
    eta_minus: ScalarOrSchedule = 0.5,
    eta_plus: ScalarOrSchedule = 1.2,
    min_step_size: ScalarOrSchedule = 1e-6,
    max_step_size: ScalarOrSchedule = 50.0,
) -> GradientTransformation:
    """Replace each element by its sign times a step size of its own.

    Args:
      learning_rate: The first step size, > 0; a number, for it is not used later.
      eta_minus: What a step size is multiplied by when the sign changes, in [0, 1).
      eta_plus: What it is multiplied by when the sign stays, >= 1.
      min_step_size: The smallest step size, > 0.
      max_step_size: The largest step size, > 0.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of its range.

    Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning",
    1993. As torch; optax (0.2.8) gives the updates of the step before.

    >>> import jopt
    >>> tx = jopt.scale_by_rprop(0.1)
    >>> updates, state = tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))
    >>> updates, tx.update(jnp.array([-2.0]), state)[0]
    (Array([-0.1], dtype=float32), Array([-0.12], dtype=float32))
    """
    arguments.positive(
        learning_rate=learning_rate,
        min_step_size=min_step_size,
        max_step_size=max_step_size,
    )
    arguments.decay_rate(eta_minus=eta_minus)
    arguments.at_least(1, eta_plus=eta_plus)

    def rule(g, s, before):
        # The product of the signs: that of tiny gradients would vanish.
        agree = jnp.sign(g) * jnp.sign(before)
        factor = jnp.where(agree > 0, eta_plus, jnp.where(agree < 0, eta_minus, 1.0))
        s = jnp.clip(factor * s, min_step_size, max_step_size)
        u = jnp.where(agree < 0, 0.0, s * jnp.sign(g))
        return u, s, u

    return leafwise(
        rule,
        state=ScaleByRpropState,
        real_only=True,
        step_sizes=full(learning_rate),
        prev_updates=zeros(),
    )


@transformation
def rprop(
    learning_rate: float,
    eta_minus: ScalarOrSchedule = 0.5,
    eta_plus: ScalarOrSchedule = 1.2,
    min_step_size: ScalarOrSchedule = 1e-6,
    max_step_size: ScalarOrSchedule = 50.0,
) -> GradientTransformation:
    """Rprop: ``p <- p - s sign(g)`` with a step size ``s`` for every element.

    Args:
      learning_rate: The first step size, > 0; 0.01 is usual. A number, for it is not
        used later.
      eta_minus: See `scale_by_rprop`, as for the other arguments.
      eta_plus: What a step size is multiplied by when the sign stays.
      min_step_size: The smallest step size.
      max_step_size: The largest step size.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of its range.

    Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning",
    1993. As torch; optax (0.2.8) makes its first step at the second.

    >>> import jopt
    >>> jopt.rprop(0.01)
    rprop(learning_rate=0.01)
    """
    return chain(
        scale_by_rprop(
            learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
        ),
        scale(-1.0),
    )
