"""Momentum: running sums and averages of the updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jopt import checks, tree
from jopt.base import GradientTransformation
from jopt.factory import StorageDtype, transformation
from jopt.hyperparams import ScalarOrSchedule
from jopt.leafwise import leafwise, zeros


class TraceState(NamedTuple):
    """State of `trace`."""

    trace: Any  # decayed sum of the updates, like params


@transformation
def trace(
    decay: ScalarOrSchedule,
    nesterov: bool = False,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Heavy-ball momentum, a decayed sum.

        m <- g + decay m,   u <- m   (nesterov: u <- g + decay m)

    Args:
      decay: The momentum, in [0, 1); 0.9 is usual.
      nesterov: Whether to look one step ahead.
      accumulator_dtype: What ``trace`` is stored in; None is float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: The decay is not in [0, 1).

    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964;
    Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013 (nesterov).

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.trace(0.9)
    >>> updates, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    >>> tx.update(jnp.ones(1), state)[0]
    Array([1.9], dtype=float32)
    """
    checks.decay_rate(decay=decay)

    def rule(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        m = g + decay * m
        return (g + decay * m if nesterov else m), m

    return leafwise(rule, state=TraceState, trace=zeros(accumulator_dtype))


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
    checks.decay_rate(decay=decay)

    def scalars(t: jax.Array) -> dict[str, jax.Array]:
        return {"filled": tree.bias_correction(decay, t)}

    def rule(
        g: jax.Array, m: jax.Array, *, filled: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        m = decay * m + (1 - decay) * g
        return (m / filled if debias else m), m

    return leafwise(rule, scalars, EmaState, ema=zeros(accumulator_dtype))
