"""Keras 3's optimizers by their names, with their arguments, defaults and numbers.

Each function returns a jopt transformation; `Adam` and its relatives are in
``adams.py``. All also take the options in `pipeline.OPTIONS` by name: weight_decay,
clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
loss_scale_factor, gradient_accumulation_steps, name, exclude_from_weight_decay.
"""

from __future__ import annotations

from typing import Unpack

from jopt.algorithms.adadelta import adadelta, scale_by_adadelta
from jopt.algorithms.adafactor import adafactor
from jopt.algorithms.adagrad import adagrad, scale_by_rss
from jopt.algorithms.ftrl import ftrl
from jopt.algorithms.lion import lion
from jopt.algorithms.rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from jopt.algorithms.sgd import sgd
from jopt.interop.keras.pipeline import (
    Options,
    Rate,
    Rule,
    between,
    check_signs,
    decay,
    optimizer,
)
from jopt.values import arguments


@optimizer
def SGD(
    learning_rate: Rate = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
    **options: Unpack[Options],
) -> Rule:
    """Keras's SGD; the learning rate is inside the momentum.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      momentum: Decay of the momentum, in [0, 1].
      nesterov: Whether to use Nesterov's look-ahead momentum.
      **options: The options of every optimizer.

    >>> SGD(0.1, momentum=0.9)
    sgd(learning_rate=0.1, momentum=0.9, lr_in_momentum=True)
    """
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"`momentum` must be a float between [0, 1]. Received: momentum={momentum}"
        )
    heavy = decay(momentum=momentum)
    if heavy:
        return Rule(sgd(learning_rate, heavy, nesterov, lr_in_momentum=True))
    return Rule(sgd(learning_rate), between(learning_rate))


@optimizer
def RMSprop(
    learning_rate: Rate = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
    **options: Unpack[Options],
) -> Rule:
    """Keras's RMSprop; epsilon is under the root.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      rho: Decay of the mean square, in [0, 1].
      momentum: Decay of a momentum of the steps, in [0, 1]; 0 means none.
      epsilon: Added to the mean square, > 0.
      centered: Whether to divide by the standard deviation instead.
      **options: The options of every optimizer.

    >>> RMSprop()
    rmsprop(learning_rate=0.001, eps=1e-07)
    """
    rho, heavy = decay(rho=rho), decay(momentum=momentum) or None
    arguments.positive(epsilon=epsilon)
    whole = rmsprop(learning_rate, rho, epsilon, centered=centered, momentum=heavy)
    if heavy:
        return Rule(whole)
    divide = scale_by_stddev if centered else scale_by_rms
    return Rule(whole, between(learning_rate, divide(rho, epsilon)))


@optimizer
def Adadelta(
    learning_rate: Rate = 0.001,
    rho: float = 0.95,
    epsilon: float = 1e-7,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Adadelta; the paper's learning rate is 1.0.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      rho: Decay of both mean squares, in [0, 1].
      epsilon: Added to both mean squares, > 0.
      **options: The options of every optimizer.

    >>> Adadelta(1.0)
    adadelta(learning_rate=1.0, rho=0.95, eps=1e-07)
    """
    rho = decay(rho=rho)
    arguments.positive(epsilon=epsilon)
    direction = scale_by_adadelta(rho, epsilon)
    whole = adadelta(learning_rate, rho, epsilon)
    return Rule(whole, between(learning_rate, direction))


@optimizer
def Adagrad(
    learning_rate: Rate = 0.001,
    initial_accumulator_value: float = 0.1,
    epsilon: float = 1e-7,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Adagrad; epsilon is under the root.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      initial_accumulator_value: Start of the sum of squares, >= 0.
      epsilon: Added to the sum of squares, > 0.
      **options: The options of every optimizer.

    >>> Adagrad()
    adagrad(learning_rate=0.001)
    """
    arguments.nonnegative(initial_accumulator_value=initial_accumulator_value)
    arguments.positive(epsilon=epsilon)
    direction = scale_by_rss(initial_accumulator_value, epsilon)
    whole = adagrad(learning_rate, initial_accumulator_value, epsilon)
    return Rule(whole, between(learning_rate, direction))


@optimizer
def Ftrl(
    learning_rate: Rate = 0.001,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
    **options: Unpack[Options],
) -> Rule:
    """Keras's FTRL.

    Args:
      learning_rate: The step size: a number > 0, a schedule, or `jopt.tunable`.
      learning_rate_power: <= 0; -0.5 is Adagrad's root, 0 a constant rate.
      initial_accumulator_value: Start of the sum of squares, >= 0.
      l1_regularization_strength: Strength of the L1 penalty, >= 0.
      l2_regularization_strength: Strength of the L2 penalty, >= 0.
      l2_shrinkage_regularization_strength: Strength s >= 0 of an L2 penalty on the
        gradient only, ``g + 2 s p``.
      beta: The paper's smoothing of the rate, >= 0: added to the root of the sum of
        squares.
      **options: The options of every optimizer.

    >>> Ftrl(l1_regularization_strength=0.1)
    ftrl(learning_rate=0.001, l1=0.1)
    """
    check_signs("negative", learning_rate_power=learning_rate_power)
    check_signs(
        "positive",
        initial_accumulator_value=initial_accumulator_value,
        l1_regularization_strength=l1_regularization_strength,
        l2_regularization_strength=l2_regularization_strength,
        l2_shrinkage_regularization_strength=l2_shrinkage_regularization_strength,
    )
    arguments.nonnegative(beta=beta)
    return Rule(
        ftrl(
            learning_rate,
            learning_rate_power,
            initial_accumulator_value,
            l1_regularization_strength,
            l2_regularization_strength,
            l2_shrinkage_regularization_strength,
            beta,
        )
    )


@optimizer
def Lion(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Lion.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Share of the momentum in the update, in (0, 1].
      beta_2: Decay of the momentum, in [0, 1].
      **options: The options of every optimizer.

    >>> Lion(1e-4, weight_decay=0.1)
    lion(learning_rate=0.0001, weight_decay=0.1)
    """
    if not 0 < beta_1 <= 1:
        raise ValueError(
            "Argument `beta_1` must be in the [0, 1] range. Otherwise, the optimizer "
            f"degenerates to SignSGD. Received: beta_1={beta_1}. These are Keras's "
            "words; it refuses 0 too"
        )
    b1, b2 = decay(beta_1=beta_1), decay(beta_2=beta_2)

    def decayed(weight_decay, mask):
        return lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=mask)

    return Rule(decayed(0.0, None), decayed)


@optimizer
def Adafactor(
    learning_rate: Rate = 0.001,
    beta_2_decay: float = -0.8,
    epsilon_1: float = 1e-30,
    epsilon_2: float = 1e-3,
    clip_threshold: float = 1.0,
    relative_step: bool = True,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Adafactor.

    Args:
      learning_rate: The relative step size: a number, a schedule, or `jopt.tunable`.
        Early steps use ``1 / sqrt(t)`` if that is smaller.
      beta_2_decay: Exponent <= 0: the second moment decays by ``1 - t^beta_2_decay``.
      epsilon_1: Added to the squared gradient, >= 0.
      epsilon_2: Lower bound on the root mean square of a parameter, > 0.
      clip_threshold: Bound on the root mean square of an update, > 0.
      relative_step: Has no effect, as in Keras.
      **options: The options of every optimizer.

    >>> tx = Adafactor(clip_threshold=2.0)
    >>> tx.get_config()["clip_threshold"]
    2.0
    """
    del relative_step
    if beta_2_decay > 0:
        raise ValueError(
            f"beta_2_decay must be <= 0, got beta_2_decay={beta_2_decay}: it is an "
            "exponent; -0.8 is usual"
        )
    arguments.nonnegative(epsilon_1=epsilon_1)
    arguments.positive(epsilon_2=epsilon_2, clip_threshold=clip_threshold)
    return Rule(
        adafactor(
            learning_rate,
            min_dim_size_to_factor=1,
            decay_rate=-beta_2_decay,
            clipping_threshold=clip_threshold,
            eps=epsilon_1,
            min_scale=epsilon_2,
            factored_axes="last",
            relative_step=True,
        )
    )
