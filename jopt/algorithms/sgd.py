"""Gradient descent, with optional momentum or noise.

    m <- g + momentum m,   p <- p - learning_rate m

Robbins & Monro, "A stochastic approximation method", 1951; Polyak, 1964 (momentum);
Sutskever et al., 2013 (Nesterov's); Neelakantan et al., 2015 (noise).

State: none, or 4 bytes per float32 parameter with momentum. The classic for
convolutional networks: learning rate 0.1, momentum 0.9, a decaying schedule.
"""

from __future__ import annotations

import jax

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import trace
from jopt.transforms.noise import add_noise
from jopt.transforms.weight_decay import decoupled_decay
from jopt.values.arguments import text_of
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
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
) -> GradientTransformation:
    """Stochastic gradient descent, with or without momentum.

        m <- g + momentum m           without momentum, m is g
        p <- p - learning_rate m

    The classic for convolutional networks is a learning rate of 0.1, momentum 0.9 and a
    decaying schedule.

    Args:
      learning_rate: Step size, >= 0.
      momentum: Decay of the momentum, in [0, 1); None keeps no momentum. A tunable or
        scheduled one is called ``decay`` in the state, as in `trace`.
      nesterov, accumulator_dtype: See `trace`.
      lr_in_momentum: If True, the learning rate enters the momentum,
        ``m <- momentum m - learning_rate g`` (Keras), else it multiplies the momentum
        (optax, torch). They differ while the learning rate changes.
      dampening: See `trace`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate;
        None means no decay. It does not enter the momentum; torch's does, which is
        ``chain(add_decayed_weights(w), sgd(…))``.
      mask: See `add_decayed_weights`.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range, ``nesterov`` or ``dampening`` is given
        without ``momentum``, or both are given; or ``weight_decay`` with
        ``lr_in_momentum``.

    For torch's ``maximize=True``, use ``chain(scale(-1.0), sgd(…))``.

    >>> import jopt
    >>> jopt.sgd(0.1, momentum=0.9, nesterov=True)
    sgd(learning_rate=0.1, momentum=0.9, nesterov=True)
    """
    decay = decoupled_decay(weight_decay, mask)
    rate = scale_by_learning_rate(learning_rate)
    if momentum is None:
        if nesterov:
            raise ValueError("nesterov=True needs a momentum, got momentum=None")
        if dampening is not None:
            raise ValueError(
                f"dampening={text_of(dampening)} needs a momentum, got momentum=None"
            )
        return chain(*decay, rate)
    heavy_ball = trace(momentum, nesterov, accumulator_dtype, dampening=dampening)
    if not lr_in_momentum:
        return chain(heavy_ball, *decay, rate)
    if decay:
        raise ValueError(
            f"weight_decay={text_of(weight_decay)} needs lr_in_momentum=False: the "
            "decay is multiplied by the learning rate after the momentum. With a "
            "constant learning rate, both values of lr_in_momentum make the same steps"
        )
    return chain(rate, heavy_ball)


@transformation
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: ScalarOrSchedule = 0.01,
    gamma: ScalarOrSchedule = 0.55,
    key: int | jax.Array | None = None,
) -> GradientTransformation:
    """Gradient descent with decaying Gaussian noise.

        p <- p - learning_rate (g + N(0, eta / t^gamma)),   t = 1, 2, …

    Args:
      learning_rate: Step size, >= 0.
      eta: Variance of the noise in the first step, >= 0.
      gamma: Exponent of its decay, >= 0.
      key: A key of ``jax.random``, or the seed of one. It is required, because runs
        with one seed have the same noise.

    Returns:
      A transformation. Its state holds the key of the next step.

    Raises:
      ValueError: A number is out of range, or ``key`` is None.

    Neelakantan et al., "Adding gradient noise improves learning for very deep
    networks", 2015.

    >>> import jopt
    >>> list(jopt.noisy_sgd(0.1, key=0).init(1.0))
    ['add_noise', 'scale_by_learning_rate']
    """
    if key is None:
        raise ValueError("noisy_sgd needs a key of jax.random or a seed, got key=None")
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))
