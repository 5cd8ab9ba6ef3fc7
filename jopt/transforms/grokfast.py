"""GrokFast: amplify the slow part of the gradients, which generalizes.

    grokfast_ema   s <- alpha s + (1 - alpha) g,   u <- g + lamb s   (s = g at first)
    grokfast_ma    s <- mean of the last window_size gradients,   u <- g + lamb s

Lee, Kang, Kim & Lee, "Grokfast: accelerated grokking by amplifying slow
gradients", 2024. For small algorithmic data sets, where memorization comes long before
generalization. Use it before any optimizer, with a weight decay of 0.01 to 1. State per
float32 parameter: 4 bytes (ema) or 4 ``window_size`` bytes (ma).
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
      alpha: Decay of the average, in [0, 1); 0.8 to 0.99 is usual.
      lamb: Multiple of the average to add, >= 0; 0.1 to 5 is usual.
      accumulator_dtype: Storage dtype of ``ema``; None means float32 or wider.

    Returns:
      A transformation; put it first in a chain.

    Raises:
      ValueError: ``alpha`` is outside [0, 1), or ``lamb`` is negative.

    Lee et al., "Grokfast", 2024; the authors' ``gradfilter_ema``. Followed by Adam it
    is GrokFastAdamW of grokfast_pytorch and pytorch_optimizer, except where eps enters.

    >>> import jopt
    >>> tx = jopt.grokfast_ema(alpha=0.5, lamb=2.0)
    >>> updates, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> updates, tx.update(jnp.array([-1.0]), state)[0]
    (Array([3.], dtype=float32), Array([-1.], dtype=float32))
    """
    arguments.decay_rate(alpha=alpha)
    arguments.nonnegative(lamb=lamb)

    def scalars(t):
        # Without a bias correction the average starts at the first gradient, not at 0.
        return {"decay": jnp.where(t == 1, 0.0, alpha)}

    def rule(g, ema, *, decay):
        ema = decay * ema + (1 - decay) * g
        return g + lamb * ema, ema

    return leafwise(rule, scalars, GrokfastEmaState, ema=zeros(accumulator_dtype))


class GrokfastMaState(NamedTuple):
    """State of `grokfast_ma`."""

    count: jax.Array  # int32 scalar, updates so far
    window: Any  # for each leaf, a tuple of the last gradients in no fixed order


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
      window_size: Number of gradients to keep, 1 to 1000. The state is that many times
        the size of the parameters.
      lamb: Multiple of the mean to add, >= 0.
      filter_type: ``"mean"`` or ``"sum"`` of the gradients.
      warmup: If True, nothing is added before step ``window_size``; if False, the mean
        is over the gradients so far.
      accumulator_dtype: Storage dtype of ``window``; None means float32 or wider.

    Returns:
      A transformation; put it first in a chain.

    Raises:
      ValueError: An argument is out of range.

    Lee et al., "Grokfast", 2024; the authors' ``gradfilter_ma``.

    >>> import jopt
    >>> tx = jopt.grokfast_ma(window_size=2, lamb=2.0)
    >>> updates, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> updates, tx.update(jnp.array([3.0]), state)[0]
    (Array([1.], dtype=float32), Array([7.], dtype=float32))
    """
    arguments.at_least(1, window_size=window_size)
    arguments.at_most(1000, window_size=window_size)
    arguments.nonnegative(lamb=lamb)
    arguments.one_of(("mean", "sum"), filter_type=filter_type)

    def scalars(t):
        filled = jnp.minimum(t, window_size)
        share = 1 / filled if filter_type == "mean" else jnp.ones_like(t)
        if warmup:
            share = jnp.where(t < window_size, 0.0, share)
        return {"oldest": (t - 1) % window_size, "share": lamb * share}

    def rule(g, window, *, oldest, share):
        # Overwrite the oldest in place: shifting the window would copy all of it.
        window = tuple(jnp.where(oldest == i, g, x) for i, x in enumerate(window))
        return g + share * sum(window[1:], window[0]), window

    slot = zeros(accumulator_dtype, each=lambda shape: [()] * window_size)
    return leafwise(rule, scalars, GrokfastMaState, window=slot)
