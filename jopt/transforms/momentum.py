"""Momentum: running sums and averages of the updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation, Place
from jopt.core.treatment import Treatment
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


LINEAR = Treatment(linear=True)


class TraceState(NamedTuple):
    """State of `trace`."""

    trace: Any  # decayed sum of the updates, like params


class DampenedTraceState(NamedTuple):
    """State of `trace` with dampening."""

    count: jax.Array  # int32 scalar, updates so far
    trace: Any  # decayed sum of the updates, like params


@transformation
def trace(
    decay: ScalarOrSchedule,
    nesterov: bool = False,
    accumulator_dtype: StorageDtype | None = None,
    *,
    dampening: ScalarOrSchedule | None = None,
) -> GradientTransformation:
    """Heavy-ball momentum: a decayed sum of the updates.

        m <- decay m + (1 - dampening) g,   u <- m   (nesterov: u <- g + decay m)

    Args:
      decay: The momentum, in [0, 1); 0.9 is usual.
      nesterov: Whether to look one step ahead.
      accumulator_dtype: Storage dtype of ``trace``, or a format, see `scale_by_adam`;
        None means float32 or wider.
      dampening: Fraction by which gradients after the first are damped, in [0, 1], as
        in torch. None (usual) damps nothing and keeps no count.

    Returns:
      A transformation.

    Raises:
      ValueError: ``decay`` is outside [0, 1), ``dampening`` is outside [0, 1], or
        ``dampening`` is given with ``nesterov=True``.

    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964;
    Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013 (nesterov).

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.trace(0.9)
    >>> updates, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    >>> tx.update(jnp.ones(1), state)[0]
    Array([1.9], dtype=float32)
    """
    arguments.decay_rate(decay=decay)
    slot = zeros(accumulator_dtype)

    def rule(g, m):
        m = g + decay * m
        return (g + decay * m if nesterov else m), m

    if dampening is None:
        return leafwise(rule, state=TraceState, treatment=LINEAR, trace=slot)
    arguments.fraction(dampening=dampening)
    if nesterov:
        raise ValueError(
            "nesterov=True is defined only without dampening, got "
            f"dampening={text_of(dampening)}"
        )

    def scalars(t):
        return {"share": jnp.where(t == 1, 1.0, 1.0 - dampening)}

    def dampened(g, m, *, share):
        m = decay * m + share * g
        return m, m

    return leafwise(dampened, scalars, DampenedTraceState, treatment=LINEAR, trace=slot)


class ApplyEveryState(NamedTuple):
    """State of `apply_every`."""

    count: jax.Array  # int32 scalar, updates so far
    grad_acc: Any  # sum of the updates since the last nonzero output, like params


@transformation
def apply_every(
    k: int = 1, *, accumulator_dtype: StorageDtype | None = None
) -> GradientTransformation:
    """Return the sum of the last ``k`` updates at every ``k``-th step, otherwise zero.

    The rest of the chain still runs at every step; with `accumulate` it runs at every
    ``k``-th step.

    Args:
      k: The number of steps, >= 1.
      accumulator_dtype: Storage dtype of ``grad_acc``; None means float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: ``k`` is less than 1.

    Same as optax, except that in optax an infinite update makes the other steps NaN.

    >>> import jopt
    >>> tx = jopt.apply_every(2)
    >>> first, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    >>> first, tx.update(jnp.ones(1), state)[0]
    (Array([0.], dtype=float32), Array([2.], dtype=float32))
    """
    arguments.at_least(1, k=k)

    def scalars(count):
        return {"position": count % k}

    def rule(g, acc, *, position):
        # where, not products with 0 and 1: 0 * inf would be NaN.
        acc = jnp.where(position == 0, g, acc + g)
        return jnp.where(position == k - 1, acc, 0.0), acc

    slot = zeros(accumulator_dtype)
    place = Place(stepped=lambda old, new: new.count % k == 0)
    return leafwise(rule, scalars, ApplyEveryState, place=place, grad_acc=slot)


class EmaState(NamedTuple):
    """State of `ema`."""

    count: jax.Array  # int32 scalar, updates so far
    ema: Any  # moving average of the updates, like params


@transformation
def ema(
    decay: ScalarOrSchedule,
    debias: bool = True,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Exponential moving average of the updates.

        m <- decay m + (1 - decay) g,   u <- m / (1 - decay^t)   (debias=False: u <- m)

    Args:
      decay: Weight of the previous average, in [0, 1).
      debias: Whether to correct for the start at zero.
      accumulator_dtype: Storage dtype of ``ema``, or a format, see `scale_by_adam`;
        None means float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: ``decay`` is outside [0, 1).

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.ema(0.9)
    >>> tx.update(jnp.ones(1), tx.init(jnp.ones(1)))[0].round(6)
    Array([1.], dtype=float32)
    """
    arguments.decay_rate(decay=decay)

    def scalars(t):
        # 1 - decay**t would cancel to three digits in float32 while t is small.
        return {"filled": tree.one_minus_power(decay, t)}

    def rule(g, m, *, filled):
        m = decay * m + (1 - decay) * g
        return (m / filled if debias else m), m

    slot = zeros(accumulator_dtype)
    return leafwise(rule, scalars, EmaState, treatment=LINEAR, ema=slot)
