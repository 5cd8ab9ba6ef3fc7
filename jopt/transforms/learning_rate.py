"""The learning rate: the last step of most optimizers.

u <- -learning_rate * g
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


@transformation
def scale(step_size: ScalarOrSchedule) -> GradientTransformation:
    """Multiply by a number: ``u <- step_size * g``.

    Args:
      step_size: The factor, of any sign.

    Returns:
      A transformation, without state if the factor is a constant.

    Raises:
      ValueError: ``step_size`` is not finite.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.scale(-0.5)
    >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]
    Array([-0.5, -0.5], dtype=float32)
    """
    arguments.finite(step_size=step_size)
    return leafwise(lambda g: step_size * g, treatment=Treatment(factor=(step_size,)))


@transformation
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply by minus the learning rate: ``u <- -learning_rate * g``.

    The state field ``learning_rate`` holds the current value, whether constant,
    scheduled or tunable. It can always be read, and set unless it is scheduled.

    Args:
      learning_rate: The step size, >= 0.
      flip_sign: If False, multiply by plus the learning rate.

    Returns:
      A transformation with the state ``(count, learning_rate)``.

    Raises:
      ValueError: ``learning_rate`` is negative or not finite.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.scale_by_learning_rate(0.1)
    >>> tx.init(jnp.ones(2)).learning_rate
    Array(0.1, dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate)
    treatment = Treatment(factor=(-1.0 if flip_sign else 1.0, learning_rate))
    if flip_sign:
        return leafwise(lambda g: -learning_rate * g, treatment=treatment)
    return leafwise(lambda g: learning_rate * g, treatment=treatment)


@transformation
def scale_by_group(multiples: Mask) -> GradientTransformation:
    """Multiply each leaf by its own number: ``u <- multiple * g``.

    After an optimizer it multiplies the learning rate of each group and its decoupled
    weight decay, like ``lr`` in torch's parameter groups.

    Args:
      multiples: The number of each leaf: `rules`, a tree of numbers (or a prefix of
        one), or a function ``params -> tree`` or ``(path, leaf) -> number``. True means
        1, and False also leaves a leaf unchanged. 0 makes the updates zero; to keep no
        state for such leaves, use `selective_transform`.

    Returns:
      A transformation without state.

    Raises:
      TypeError: A multiple is not a number.
      ValueError: ``multiples`` does not match the structure of the parameters.

    >>> import jopt, jax.numpy as jnp
    >>> multiples = jopt.rules(("head", 10.0), ("", 1.0))
    >>> tx = jopt.chain(jopt.sgd(0.1), jopt.scale_by_group(multiples))
    >>> params = {"body": jnp.ones(1), "head": jnp.ones(1)}
    >>> tx.update(params, tx.init(params), params)[0]
    {'body': Array([-0.1], dtype=float32), 'head': Array([-1.], dtype=float32)}
    """
    return leafwise(
        lambda g, *, multiple: multiple * g,
        mask=multiples,
        treatment=Treatment(factor=(1.0,)),
    )


@transformation
def scale_by_schedule(
    step_size_fn: Callable[[jax.Array], Any],
) -> GradientTransformation:
    """Multiply by a schedule: ``u <- step_size_fn(count) * g``.

    The sign is not flipped: for gradient descent the schedule is negative.

    Args:
      step_size_fn: A function of the step, which is 0 at the first update.

    Returns:
      A transformation with the state ``(count, step_size)``.

    Raises:
      TypeError: ``step_size_fn`` is not a function.

    >>> import jopt
    >>> jopt.scale_by_schedule(jopt.constant_schedule(-0.1))
    scale_by_schedule(step_size_fn=constant_schedule(value=-0.1))
    """
    if not callable(step_size_fn):
        raise TypeError(
            f"step_size_fn must be a schedule, got {text_of(step_size_fn)}; for a "
            "constant use jopt.scale"
        )
    return scale(step_size_fn)
