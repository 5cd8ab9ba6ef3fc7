"""Gradient descent, with momentum, or with noise.

    m <- g + momentum m,   p <- p - learning_rate m

Robbins & Monro, "A stochastic approximation method", 1951; Polyak, 1964 (momentum);
Sutskever et al., 2013 (Nesterov's); Neelakantan et al., 2015 (noise).

State: none, or 4 bytes per float32 parameter with momentum. Learning rate 0.1 and
momentum 0.9 with a decaying schedule are the classic for convolutional networks.
"""

from __future__ import annotations

import jax

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import trace
from jopt.transforms.noise import add_noise
from jopt.values.numbers import ScalarOrSchedule


@transformation
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    accumulator_dtype: StorageDtype | None = None,
    *,
    lr_in_momentum: bool = False,
    dampening: ScalarOrSchedule | None = None,
) -> GradientTransformation:
    """Stochastic gradient descent: ``p <- p - learning_rate g``.

    Args:
      learning_rate: The step size, >= 0.
      momentum: In [0, 1); None keeps no state for it. In the state a tunable or
        scheduled one has the name ``decay``, by which `trace` knows it.
      nesterov: Whether momentum looks one step ahead.
      accumulator_dtype: What the momentum is stored in; None is float32 or wider.
      lr_in_momentum: Whether the learning rate is inside the momentum,
        ``m <- momentum m - learning_rate g`` (Keras), or applied to it (optax, torch).
        They differ while the learning rate changes.
      dampening: What a gradient loses on its way into the momentum, in [0, 1], but for
        the first (torch); see `trace`.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range, or nesterov or dampening without
        momentum, or both.

    torch's ``maximize=True`` is ``chain(scale(-1.0), sgd(…))``.

    >>> import jopt
    >>> jopt.sgd(0.1, momentum=0.9, nesterov=True)
    sgd(learning_rate=0.1, momentum=0.9, nesterov=True)
    """
    rate = scale_by_learning_rate(learning_rate)
    if momentum is None:
        if nesterov:
            raise ValueError("nesterov=True needs a momentum, got momentum=None")
        if dampening is not None:
            raise ValueError(
                f"dampening={dampening!r} needs a momentum, got momentum=None"
            )
        return chain(rate)
    heavy = trace(momentum, nesterov, accumulator_dtype, dampening=dampening)
    return chain(rate, heavy) if lr_in_momentum else chain(heavy, rate)


@transformation
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: ScalarOrSchedule = 0.01,
    gamma: ScalarOrSchedule = 0.55,
    key: int | jax.Array | None = None,
) -> GradientTransformation:
    """Gradient descent with noise that fades.

        p <- p - learning_rate (g + N(0, eta / t^gamma)),   t = 1, 2, …

    Args:
      learning_rate: The step size, >= 0.
      eta: The variance at the first step, >= 0.
      gamma: How fast it fades, >= 0.
      key: A key of ``jax.random``, or the seed of one. It has to be given: two runs
        with one seed have the same noise.

    Returns:
      A transformation. Its state holds the key of the next step.

    Raises:
      ValueError: A number is out of its range, or there is no key.

    Neelakantan et al., "Adding gradient noise improves learning for very deep
    networks", 2015.

    >>> import jopt
    >>> list(jopt.noisy_sgd(0.1, key=0).init(1.0))
    ['add_noise', 'scale_by_learning_rate']
    """
    if key is None:
        raise ValueError("noisy_sgd needs a key of jax.random or a seed, got key=None")
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))
