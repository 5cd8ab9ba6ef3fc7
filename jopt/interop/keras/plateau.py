"""Keras's ReduceLROnPlateau, which changes the learning rate itself."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.around import VALUE, around
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.state.hyperparams import numbers_of, selected, set_hyperparams
from jopt.transforms.plateau import ReduceOnPlateauState, reduce_on_plateau
from jopt.values import arguments


RATES = "*/learning_rate"


class ReduceLROnPlateauState(NamedTuple):
    """State of `ReduceLROnPlateau`: that of `reduce_on_plateau` without its scale."""

    best_value: jax.Array  # best value so far, infinitely bad at first
    plateau_count: jax.Array  # consecutive values without improvement
    cooldown_count: jax.Array  # values left that do not count
    avg_count: jax.Array  # number of values in the current mean
    avg_value: jax.Array  # mean of these values
    inner_state: Any  # state of the optimizer, which has the learning rate


KEPT = ReduceLROnPlateauState._fields[:-1]


@transformation
def ReduceLROnPlateau(
    optimizer: GradientTransformation,
    factor: float = 0.1,
    patience: int = 10,
    mode: Literal["min", "max"] = "min",
    min_delta: float = 1e-4,
    cooldown: int = 0,
    min_lr: float = 0.0,
    *,
    steps_per_epoch: int = 1,
) -> GradientTransformation:
    """Reduce an optimizer's learning rate when a metric stops improving.

        tx = ReduceLROnPlateau(SGD(0.1, momentum=0.9), patience=5)
        updates, state = tx.update(grads, state, params, value=metric)

    It changes ``learning_rate`` in the optimizer's state, wherever the optimizer has
    it, as Keras's callback does: behind SGD with momentum, which keeps steps that were
    made at the old rate, `reduce_on_plateau` would shrink these, too. `hyperparams`
    shows the new rate, and `set_hyperparams` may change it in between. Of a
    `MultiOptimizer` it reduces every rate.

    A value acts on the update that gets it, the value of an epoch in Keras on the epoch
    after it. For a metric of epochs, pass the latest value to each update.

    Args:
      optimizer: A transformation whose learning rate is not scheduled.
      factor: Factor of each reduction, in [0, 1).
      patience: Number of values in a row without improvement that reduce the rate.
      mode: Whether a smaller (``"min"``) or larger (``"max"``) value is better.
      min_delta: Amount by which a value must improve on the best, >= 0.
      cooldown: Number of values after a reduction that are not counted.
      min_lr: The lowest rate, >= 0.
      steps_per_epoch: Number of updates whose mean value counts as one value.

    Returns:
      A transformation whose update needs ``value``.

    Raises:
      ValueError: A number is out of range; or, from ``init``, the learning rate is
        scheduled.
      KeyError: From ``init``: the optimizer has no learning rate.

    NaN is never the best value; in Keras a first NaN stays the best.

    >>> import jopt
    >>> from jopt.interop.keras import SGD
    >>> tx = ReduceLROnPlateau(SGD(1.0, momentum=0.5), 0.5, patience=1)
    >>> params, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    >>> for loss in [3.0, 3.0, 3.0]:
    ...     updates, state = tx.update(jnp.ones(1), state, params, value=loss)
    >>> jopt.hyperparams(state)["learning_rate"]
    Array(0.25, dtype=float32)
    """
    inner = as_transformation(optimizer, "ReduceLROnPlateau: optimizer")
    arguments.decay_rate(factor=factor)
    arguments.nonnegative(min_delta=min_delta, min_lr=min_lr)
    # Its scale starts at 1 in every step, so any factor tells whether it reduces.
    judge = reduce_on_plateau(
        0.5,
        patience,
        rtol=0.0,
        atol=min_delta,
        cooldown=cooldown,
        accumulation_size=steps_per_epoch,
        rule="keras",
        mode=mode,
    )

    def with_inner(judged, inner_state):
        kept = {name: getattr(judged, name) for name in KEPT}
        return ReduceLROnPlateauState(**kept, inner_state=inner_state)

    def init(params):
        inner_state = inner.init(params)
        # Raises where there is no rate that can be set.
        set_hyperparams(inner, inner_state, **{RATES: min_lr})
        return with_inner(judge.init(()), inner_state)

    def update(updates, state, params=None, *, value, **extra):
        kept = {name: getattr(state, name) for name in KEPT}
        before = ReduceOnPlateauState(scale=jnp.ones_like(state.avg_value), **kept)
        _, after = judge.update((), before, value=value)
        numbers = numbers_of(state.inner_state)
        rates = {name: numbers[name] for name in selected(RATES, numbers.paths)}
        # A rate that was set below the lowest one stays, as in Keras.
        lower = {
            name: jnp.where(
                (after.scale < 1) & (rate > min_lr),
                jnp.maximum(factor * rate, min_lr),
                rate,
            )
            for name, rate in rates.items()
        }
        inner_state = set_hyperparams(inner, state.inner_state, **lower)
        updates, inner_state = inner.update(
            updates, inner_state, params, value=value, **extra
        )
        return updates, with_inner(after, inner_state)

    also = VALUE._replace(requires=VALUE.accepts)
    return around(inner, init, update, ReduceLROnPlateauState, also=also)
