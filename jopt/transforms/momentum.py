"""Momentum: running sums and averages of the updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


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
    """Heavy-ball momentum, a decayed sum.

        m <- decay m + (1 - dampening) g,   u <- m   (nesterov: u <- g + decay m)

    Args:
      decay: The momentum, in [0, 1); 0.9 is usual.
      nesterov: Whether to look one step ahead.
      accumulator_dtype: What ``trace`` is stored in; None is float32 or wider.
      dampening: What the gradient loses on its way into the sum, in [0, 1], but for
        the first, which is taken whole (torch). None, the usual, keeps no count.

    Returns:
      A transformation.

    Raises:
      ValueError: The decay is not in [0, 1), or dampening not in [0, 1], or dampening
        and nesterov are both given.

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
        return leafwise(rule, state=TraceState, trace=slot)
    arguments.fraction(dampening=dampening)
    if nesterov:
        raise ValueError(
            "nesterov=True is defined without dampening only, got "
            f"dampening={dampening!r}"
        )

    def scalars(t):
        return {"share": jnp.where(t == 1, 1.0, 1.0 - dampening)}

    def dampened(g, m, *, share):
        m = decay * m + share * g
        return m, m

    return leafwise(dampened, scalars, DampenedTraceState, trace=slot)


class ApplyEveryState(NamedTuple):
    """State of `apply_every`."""

    count: jax.Array  # int32 scalar, updates so far
    grad_acc: Any  # sum of the updates since the last that was let through, like params


@transformation
def apply_every(
    k: int = 1, *, accumulator_dtype: StorageDtype | None = None
) -> GradientTransformation:
    """Let the sum of ``k`` updates through at every ``k``-th step, else zero.

    What else is in the chain runs at every step; `accumulate` runs it at every
    ``k``-th.

    Args:
      k: The number of steps, >= 1.
      accumulator_dtype: What ``grad_acc`` is stored in; None is float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: ``k`` is less than 1.

    As optax, where an infinite update makes those of the other steps NaN.

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
        acc = jnp.where(position == 0, g, acc + g)
        return jnp.where(position == k - 1, acc, 0.0), acc

    slot = zeros(accumulator_dtype)
    return leafwise(rule, scalars, ApplyEveryState, grad_acc=slot)


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
      decay: In [0, 1).
      debias: Whether to correct for the start at zero.
      accumulator_dtype: What ``ema`` is stored in; None is float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: The decay is not in [0, 1).

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.ema(0.9)
    >>> tx.update(jnp.ones(1), tx.init(jnp.ones(1)))[0].round(6)
    Array([1.], dtype=float32)
    """
    arguments.decay_rate(decay=decay)

    def scalars(t):
        return {"filled": tree.one_minus_power(decay, t)}

    def rule(g, m, *, filled):
        m = decay * m + (1 - decay) * g
        return (m / filled if debias else m), m

    return leafwise(rule, scalars, EmaState, ema=zeros(accumulator_dtype))
