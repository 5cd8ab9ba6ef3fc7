"""GrokFast: amplify the slow part of the gradients, which generalizes.

    grokfast_ema   s <- alpha s + (1 - alpha) g,   u <- g + lamb s   (s = g at first)
    grokfast_ma    s <- mean of the last window_size gradients,   u <- g + lamb s

Lee, Kang, Kim & Lee, "Grokfast: accelerated grokking by amplifying slow
gradients", 2024. For small algorithmic data sets that are memorized long before they
are understood; before any optimizer, with a weight decay of 0.01 to 1. State per
float32 parameter: 4 bytes, or 4 times the window.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class GrokfastEmaState(NamedTuple):
    """State of `grokfast_ema`."""

    count: jax.Array  # int32 scalar, updates so far
    ema: Any  # moving average of the gradients, like params


@transformation
def grokfast_ema(
    alpha: ScalarOrSchedule = 0.98,
    lamb: ScalarOrSchedule = 2.0,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Add a multiple of the gradients' moving average: ``u <- g + lamb s``.

    Args:
      alpha: Decay of the average, in [0, 1); 0.8 to 0.99.
      lamb: How much of it, >= 0; 0.1 to 5.
      accumulator_dtype: What ``ema`` is stored in; None is float32 or wider.

    Returns:
      A transformation; it comes first in a chain.

    Raises:
      ValueError: A number is out of its range.

    Lee et al., "Grokfast", 2024; the authors' ``gradfilter_ema``. Adam behind it is
    GrokFastAdamW of grokfast_pytorch and pytorch_optimizer, but for the place of eps.

    >>> import jopt
    >>> tx = jopt.grokfast_ema(alpha=0.5, lamb=2.0)
    >>> updates, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> updates, tx.update(jnp.array([-1.0]), state)[0]
    (Array([3.], dtype=float32), Array([-1.], dtype=float32))
    """
    arguments.decay_rate(alpha=alpha)
    arguments.nonnegative(lamb=lamb)

    def scalars(t):
        return {"kept": jnp.where(t == 1, 0.0, alpha)}

    def rule(g, ema, *, kept):
        ema = kept * ema + (1 - kept) * g
        return g + lamb * ema, ema

    return leafwise(rule, scalars, GrokfastEmaState, ema=zeros(accumulator_dtype))


class GrokfastMaState(NamedTuple):
    """State of `grokfast_ma`."""

    count: jax.Array  # int32 scalar, updates so far
    window: Any  # for each leaf a tuple of the last gradients, in no order


@transformation
def grokfast_ma(
    window_size: int = 100,
    lamb: ScalarOrSchedule = 5.0,
    filter_type: Literal["mean", "sum"] = "mean",
    warmup: bool = True,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Add a multiple of the mean of the last gradients: ``u <- g + lamb s``.

    Args:
      window_size: How many gradients are kept, >= 1: that many times the memory of the
        parameters.
      lamb: How much of their mean, >= 0.
      filter_type: ``"mean"``, or ``"sum"`` of the gradients.
      warmup: Whether nothing is added until there are ``window_size`` gradients; else
        the mean is of those that there are.
      accumulator_dtype: What the gradients are stored in; None is float32 or wider.

    Returns:
      A transformation; it comes first in a chain.

    Raises:
      ValueError: A number is out of its range.

    Lee et al., "Grokfast", 2024; the authors' ``gradfilter_ma``.

    >>> import jopt
    >>> tx = jopt.grokfast_ma(window_size=2, lamb=2.0)
    >>> updates, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> updates, tx.update(jnp.array([3.0]), state)[0]
    (Array([1.], dtype=float32), Array([7.], dtype=float32))
    """
    arguments.at_least(1, window_size=window_size)
    arguments.nonnegative(lamb=lamb)
    arguments.one_of(("mean", "sum"), filter_type=filter_type)

    def scalars(t):
        filled = jnp.minimum(t, window_size)
        share = 1 / filled if filter_type == "mean" else jnp.ones_like(t)
        if warmup:
            share = jnp.where(t < window_size, 0.0, share)
        return {"oldest": (t - 1) % window_size, "share": lamb * share}

    def rule(g, window, *, oldest, share):
        window = tuple(jnp.where(oldest == i, g, x) for i, x in enumerate(window))
        return g + share * sum(window[1:], window[0]), window

    kept = zeros(accumulator_dtype, each=lambda shape: [()] * window_size)
    return leafwise(rule, scalars, GrokfastMaState, window=kept)
