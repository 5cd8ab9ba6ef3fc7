"""Keras's ReduceLROnPlateau, which changes the learning rate itself."""

from __future__ import annotations

from typing import Literal

from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.interop.shared.plateau import reducing
from jopt.values import arguments


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
    `MultiOptimizer` it reduces every rate. A scheduled rate, which Keras refuses, is
    the schedule's times the factors so far.

    A value acts on the update that gets it, the value of an epoch in Keras on the epoch
    after it. For a metric of epochs, pass the latest value to each update.

    Args:
      optimizer: A transformation with a learning rate.
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
      ValueError: A number is out of range; or the learning rate is scheduled, but by no
        argument ``learning_rate``.
      KeyError: From ``init``: the optimizer has no learning rate.

    NaN is never the best value; in Keras a first NaN stays the best.

    >>> import jax.numpy as jnp, jopt
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
    return reducing(
        inner,
        factor,
        patience,
        atol=min_delta,
        cooldown=cooldown,
        steps_per_epoch=steps_per_epoch,
        lowest=lambda path: min_lr,
        rule="keras",
        mode=mode,
    )
