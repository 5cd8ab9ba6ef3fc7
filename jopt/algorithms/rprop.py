"""Rprop: a step size for every element, adapted by the signs of its gradients.

    s <- clip(s eta_plus,  min, max)      where g has the sign of the last step's g
    s <- clip(s eta_minus, min, max)      where the sign has changed; there g <- 0
    p <- p - s sign(g)

Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning: the
RPROP algorithm", 1993. This is iRprop- (Igel & Hüsken, "Improving the Rprop learning
algorithm", 2000), which does not take the last step back after a change of sign.

State: 8 bytes per float32 parameter. For gradients of the whole data set, because the
noise of batches changes signs too. The learning rate only sets the first step size.
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
    """Replace each element by its sign times its own step size.

    Args:
      learning_rate: Initial step size, > 0. It must be a number, because later steps do
        not use it.
      eta_minus: Factor of a step size when the sign changes, in [0, 1).
      eta_plus: Factor of a step size when the sign stays, >= 1.
      min_step_size: Smallest step size, > 0.
      max_step_size: Largest step size, > 0.

    Returns:
      A transformation for real numbers.

    Raises:
      ValueError: A number is out of range.

    Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning",
    1993. Equal to torch; optax (0.2.8) returns the updates of the step before.

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
        # Of the signs, because the product of tiny gradients would underflow.
        agree = jnp.sign(g) * jnp.sign(before)
        factor = jnp.where(agree > 0, eta_plus, jnp.where(agree < 0, eta_minus, 1.0))
        s = jnp.clip(factor * s, min_step_size, max_step_size)
        # The zero is stored too, so that the next step leaves the step size alone.
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

    A step size grows while the sign of the gradient stays, and shrinks when it changes.
    For gradients of the whole data set: the noise of batches changes signs too.

    Args:
      learning_rate: Initial step size, > 0; 0.01 is usual. It must be a number, because
        later steps do not use it.
      eta_minus, eta_plus, min_step_size, max_step_size: See `scale_by_rprop`.

    Returns:
      A transformation for real numbers.

    Raises:
      ValueError: A number is out of range.

    Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning",
    1993. Equal to torch; optax (0.2.8) takes its first step at the second update.

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
