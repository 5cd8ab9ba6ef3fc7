"""Reduce the learning rate when a metric stops improving.

A value improves on the best one so far if

    value < (1 - rtol) best - atol,      or  value > (1 + rtol) best + atol  for "max".

After ``patience`` consecutive values without improvement the scale is multiplied by
``factor``, and the next ``cooldown`` values are not counted. The state is six scalars.
Factors of 0.1 to 0.5 and a patience of 5 to 10 epochs on a validation metric are usual.
The total number of steps need not be known.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ReduceOnPlateauState(NamedTuple):
    """State of `reduce_on_plateau`: float scalars."""

    scale: jax.Array  # factor of the updates
    best_value: jax.Array  # best value so far, infinitely bad at first
    plateau_count: jax.Array  # consecutive values without improvement
    cooldown_count: jax.Array  # values left that do not count
    avg_count: jax.Array  # number of values in the current mean
    avg_value: jax.Array  # mean of these values


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
    rule: Literal["optax", "keras", "torch"] = "optax",
    mode: Literal["min", "max"] = "min",
    eps: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """Scale updates down when a metric stops improving; below 0 it needs ``rtol=0``.

        scale <- max(factor scale, min_scale)   after ``patience`` bad values in a row
        u <- scale g

    The default rule is relative, as in optax and torch. A negative best value times
    1 - rtol is worse than itself, so values that stay the same improve on it, and the
    scale never falls. For values that may be negative, such as a log likelihood, use
    the absolute rule: ``rtol=0.0, atol=1e-4``, torch's ``threshold_mode="abs"``.

    Pass the metric to each update as ``value=…``. After an optimizer, as in
    ``chain(adam(1e-3), reduce_on_plateau())``, the scale multiplies the learning rate.
    The state field ``scale`` holds it. `hyperparams` and `metrics` report it, and the
    product of the two as ``effective_learning_rate``.

    For a metric computed once per epoch, pass the latest value to each update and set
    ``accumulation_size`` to the updates per epoch; ``patience`` and ``cooldown`` then
    count epochs.

    Keras's ReduceLROnPlateau is ``rtol=0.0, atol=1e-4, rule="keras"``, and torch's is
    ``rule="torch", eps=1e-8 / learning_rate``, each with its own other defaults. Keras
    changes the learning rate itself. Where a momentum contains the rate, as in Keras's
    SGD, a scale of the updates is not the same: use
    `jopt.interop.keras.ReduceLROnPlateau`.
    ``min_lr`` is ``min_scale=min_lr / learning_rate``, torch's ``threshold`` is
    ``rtol``, or ``atol`` with ``rtol=0.0``, and Keras's ``min_delta`` is ``atol``.

    Args:
      factor: Factor of the scale at each reduction, in [0, 1). With 0 the first one
        goes to ``min_scale``.
      patience: Number of consecutive values without improvement, >= 0; see ``rule``.
      rtol: Minimum improvement relative to the best value, in [0, 1). Use it only for
        values > 0.
      atol: Minimum absolute improvement, >= 0.
      cooldown: Number of values after a reduction that do not count, >= 0.
      accumulation_size: Number of values averaged into one, >= 1.
      min_scale: The lowest scale, in [0, 1].
      rule: When to reduce: ``"optax"`` at the ``patience``-th bad value, ``"torch"`` at
        the one after it, ``"keras"`` like optax, but counting the last value of the
        cooldown.
      mode: ``"min"`` for a loss, ``"max"`` for an accuracy.
      eps: Reductions by at most this much are skipped, >= 0.

    Returns:
      A transformation whose update needs ``value``.

    Raises:
      ValueError: An argument is out of range.

    Same as ``optax.contrib.reduce_on_plateau``, whose scale loses digits with bfloat16
    parameters. NaN is never the best value; in Keras a first NaN stays the best.

    >>> import jopt
    >>> tx = jopt.chain(jopt.sgd(1.0), plateau=jopt.reduce_on_plateau(0.5, patience=2))
    >>> state = tx.init(jnp.ones(1))
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     updates, state = tx.update(jnp.ones(1), state, value=loss)
    >>> updates, state["plateau"].scale
    (Array([-0.5], dtype=float32), Array(0.5, dtype=float32))
    """
    arguments.decay_rate(factor=factor, rtol=rtol)
    arguments.nonnegative(atol=atol, eps=eps)
    arguments.at_least(0, patience=patience, cooldown=cooldown)
    arguments.at_least(1, accumulation_size=accumulation_size)
    arguments.fraction(min_scale=min_scale)
    arguments.one_of(("optax", "keras", "torch"), rule=rule)
    arguments.one_of(("min", "max"), mode=mode)
    # torch reduces when the count exceeds patience, the others when it reaches it; an
    # improvement never reduces, even with patience 0. Keras counts the value at which
    # the cooldown ends.
    enough = max(patience + (rule == "torch"), 1)
    uncounted = max(cooldown - (rule == "keras"), 0)

    def improves(value, best):
        if mode == "min":
            return value < (1 - rtol) * best - atol
        return value > (1 + rtol) * best + atol

    def scalars(
        value, scale, best_value, plateau_count, cooldown_count, avg_count, avg_value
    ):
        # A running mean, not a sum: the sum of a long epoch would lose digits.
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
        lambda g, *, scale: scale * g,
        scalars,
        ReduceOnPlateauState,
        carry=carry,
        treatment=Treatment(factor=(1.0,)),
    )
