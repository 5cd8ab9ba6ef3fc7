"""A smaller learning rate when a metric has stopped improving.

What is counted are values in a row that are no improvement on the best one,

    value < (1 - rtol) best - atol,      or  value > (1 + rtol) best + atol  for "max".

After ``patience`` of them the scale is multiplied by ``factor``, and the next
``cooldown`` values are not counted. The state is six scalars. Factors of 0.1 to 0.5 and
5 to 10 epochs of patience are usual, on a validation metric; the total number of steps
need not be known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ReduceOnPlateauState(NamedTuple):
    """State of `reduce_on_plateau`: scalars, all floats."""

    scale: jax.Array  # what updates are multiplied by
    best_value: jax.Array  # the best so far, infinitely bad at first
    plateau_count: jax.Array  # values in a row that were no improvement
    cooldown_count: jax.Array  # values that will still not be counted
    avg_count: jax.Array  # values in the mean so far
    avg_value: jax.Array  # the mean of these


@transformation
def reduce_on_plateau(
    factor: ScalarOrSchedule = 0.1,
    patience: int = 10,
    rtol: ScalarOrSchedule = 1e-4,
    atol: ScalarOrSchedule = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: ScalarOrSchedule = 0.0,
    *,
    rule: str = "optax",
    mode: str = "min",
    eps: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """Scale updates down when a value that each update is told stops improving.

        scale <- max(factor scale, min_scale)   after ``patience`` bad values in a row
        u <- scale g

    Each update takes the metric as ``value=…``. Behind an optimizer that multiplies the
    learning rate: ``chain(adam(1e-3), reduce_on_plateau())``. The scale is the field
    ``scale`` of the state.

    A metric that is known once an epoch: tell each update the last one, with
    ``accumulation_size`` the updates of an epoch; then ``patience`` and ``cooldown``
    are epochs.

    Keras's ReduceLROnPlateau is ``rtol=0.0, atol=1e-4, rule="keras"``, and torch's is
    ``rule="torch", eps=1e-8 / learning_rate``, each with its own defaults else.
    ``min_lr`` is ``min_scale=min_lr / learning_rate``, torch's ``threshold`` is
    ``rtol``, or ``atol`` with ``rtol=0.0``, and Keras's ``min_delta`` is ``atol``.

    Args:
      factor: What the scale is multiplied by, in (0, 1).
      patience: How many values in a row may be no improvement, >= 0.
      rtol: By what share of the best value the next has to be better, in [0, 1). It
        makes sense for values > 0 only: 1 - rtol times a negative number is worse.
      atol: By how much it has to be better, >= 0.
      cooldown: How many values after a reduction are not counted, >= 0.
      accumulation_size: The mean of so many values counts as one, >= 1.
      min_scale: The lowest scale, in [0, 1].
      rule: What is counted. ``"optax"`` reduces at the ``patience``-th bad value.
        ``"torch"`` does at the one after it. ``"keras"`` is as optax, but counts the
        last value of the cooldown.
      mode: ``"min"`` for a loss, ``"max"`` for an accuracy.
      eps: A reduction by no more than this is not made, >= 0.

    Returns:
      A transformation whose update needs ``value``.

    Raises:
      ValueError: A number is out of its range.

    Equal to ``optax.contrib.reduce_on_plateau``, whose scale loses digits with bfloat16
    parameters. NaN is never the best value; Keras keeps one that comes first for ever.

    >>> import jopt
    >>> tx = jopt.chain(jopt.sgd(1.0), plateau=jopt.reduce_on_plateau(0.5, patience=2))
    >>> state = tx.init(jnp.ones(1))
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     updates, state = tx.update(jnp.ones(1), state, value=loss)
    >>> updates, state["plateau"].scale
    (Array([-0.5], dtype=float32), Array(0.5, dtype=float32))
    """
    arguments.positive(factor=factor)
    arguments.decay_rate(factor=factor, rtol=rtol)
    arguments.nonnegative(atol=atol, eps=eps)
    arguments.at_least(0, patience=patience, cooldown=cooldown)
    arguments.at_least(1, accumulation_size=accumulation_size)
    arguments.fraction(min_scale=min_scale)
    arguments.one_of(("optax", "keras", "torch"), rule=rule)
    arguments.one_of(("min", "max"), mode=mode)
    # A value that is bad by itself, and no value in the cooldown.
    enough = max(patience + (rule == "torch"), 1)
    uncounted = max(cooldown - (rule == "keras"), 0)

    def improves(value, best):
        if mode == "min":
            return value < (1 - rtol) * best - atol
        return value > (1 + rtol) * best + atol

    def scalars(
        value, scale, best_value, plateau_count, cooldown_count, avg_count, avg_value
    ):
        arguments.one_number("value", value)
        share = 1 / (avg_count + 1)
        mean = (1 - share) * avg_value + share * scalar(value)
        counts = avg_count + 1 >= accumulation_size

        better = improves(mean, best_value)
        cooling = cooldown_count > 0
        bad = jnp.where(better | cooling, 0, plateau_count + 1)
        plateau = bad >= enough
        reduced = jnp.maximum(factor * scale, min_scale)
        reduced = jnp.where(plateau & (scale - reduced > eps), reduced, scale)
        rest = jnp.maximum(cooldown_count - 1, 0)
        after = {
            "scale": reduced,
            "best_value": jnp.where(better, mean, best_value),
            "plateau_count": jnp.where(plateau, 0, bad),
            "cooldown_count": jnp.where(plateau, uncounted, rest),
            "avg_count": 0,
            "avg_value": 0,
        }
        before = {
            "scale": scale,
            "best_value": best_value,
            "plateau_count": plateau_count,
            "cooldown_count": cooldown_count,
            "avg_count": avg_count + 1,
            "avg_value": mean,
        }
        return {name: jnp.where(counts, after[name], x) for name, x in before.items()}

    carry = dict.fromkeys(ReduceOnPlateauState._fields, 0.0)
    carry |= {"scale": 1.0, "best_value": math.inf if mode == "min" else -math.inf}
    return leafwise(
        lambda g, *, scale: scale * g, scalars, ReduceOnPlateauState, carry=carry
    )
