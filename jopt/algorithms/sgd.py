"""Gradient descent, with momentum.

    m <- g + momentum m,   p <- p - learning_rate m

Robbins & Monro, "A stochastic approximation method", 1951; Polyak, 1964 (momentum);
Sutskever et al., 2013 (Nesterov's).

State: none, or 4 bytes per float32 parameter with momentum. Learning rate 0.1 and
momentum 0.9 with a decaying schedule are the classic for convolutional networks.
"""

from __future__ import annotations

from jopt.base import GradientTransformation
from jopt.chain import chain
from jopt.factory import StorageDtype, transformation
from jopt.hyperparams import ScalarOrSchedule
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import trace


@transformation
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    *,
    lr_in_momentum: bool = False,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Stochastic gradient descent: ``p <- p - learning_rate g``.

    Args:
      learning_rate: The step size, >= 0.
      momentum: In [0, 1); None keeps no state for it. In the state a tunable or
        scheduled one has the name ``decay``, by which `trace` knows it.
      nesterov: Whether momentum looks one step ahead.
      lr_in_momentum: Whether the learning rate is inside the momentum,
        ``m <- momentum m - learning_rate g`` (Keras), or applied to it (optax, torch).
        They differ while the learning rate changes.
      accumulator_dtype: What the momentum is stored in; None is float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range, or nesterov without momentum.

    >>> import jopt
    >>> jopt.sgd(0.1, momentum=0.9, nesterov=True)
    sgd(learning_rate=0.1, momentum=0.9, nesterov=True)
    """
    rate = scale_by_learning_rate(learning_rate)
    if momentum is None:
        if nesterov:
            raise ValueError("nesterov=True needs a momentum, got momentum=None")
        return chain(rate)
    heavy = trace(momentum, nesterov, accumulator_dtype)
    return chain(rate, heavy) if lr_in_momentum else chain(heavy, rate)
