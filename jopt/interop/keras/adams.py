"""Keras 3's Adam and its relatives; the other optimizers are in ``optimizers.py``.

Adam, AdamW and amsgrad add epsilon before the bias correction ("epsilon hat").
"""

from __future__ import annotations

from typing import Any, Unpack

from jopt.algorithms.adam import adam, adamw
from jopt.algorithms.adamax import adamax, scale_by_adamax
from jopt.algorithms.amsgrad import amsgrad, scale_by_amsgrad
from jopt.algorithms.lamb import lamb
from jopt.algorithms.nadam import nadam, scale_by_nadam
from jopt.algorithms.schedule_free import schedule_free_adamw
from jopt.interop.keras.decay import decayed_first
from jopt.interop.keras.pipeline import (
    Excluding,
    Options,
    Rate,
    Rule,
    between,
    decay,
    optimizer,
)
from jopt.values import arguments


def adam_rule(
    learning_rate: Any, beta_1: float, beta_2: float, epsilon: float, amsgrad_: bool
) -> Rule:
    """Return the rule of Adam, with or without amsgrad."""
    arguments.decay_rate(beta_1=beta_1, beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    numbers: dict[str, Any] = {"b1": beta_1, "b2": beta_2, "eps": epsilon}
    numbers["eps_mode"] = "before"
    if not amsgrad_:

        def decayed(weight_decay, mask):
            return adamw(learning_rate, **numbers, weight_decay=weight_decay, mask=mask)

        return Rule(adam(learning_rate, **numbers), decayed)
    direction = scale_by_amsgrad(**numbers, maximum="raw")
    whole = amsgrad(learning_rate, **numbers, maximum="raw")
    return Rule(whole, between(learning_rate, direction))


@optimizer
def Adam(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Adam.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0.
      amsgrad: Whether to divide by the root of the largest second moment so far.
      **options: The options of every optimizer.

    >>> Adam(0.01)
    adam(learning_rate=0.01, eps=1e-07, eps_mode='before')
    """
    return adam_rule(learning_rate, beta_1, beta_2, epsilon, amsgrad)


@optimizer
def AdamW(
    learning_rate: Rate = 0.001,
    weight_decay: float = 0.004,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[Excluding],
) -> Rule:
    """Keras's AdamW: Adam with a default of ``weight_decay``.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      weight_decay: Before each step the parameters shrink by ``learning_rate
        weight_decay``, >= 0.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0.
      amsgrad: Whether to divide by the root of the largest second moment so far.
      **options: The options of every optimizer.

    >>> AdamW().get_config()["weight_decay"]
    0.004
    """
    del weight_decay  # the pipeline applies it, as for every optimizer
    return adam_rule(learning_rate, beta_1, beta_2, epsilon, amsgrad)


@optimizer
def Adamax(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Adamax.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the maximum of the magnitudes, in [0, 1].
      epsilon: Added to the maximum, > 0.
      **options: The options of every optimizer.

    >>> Adamax()
    adamax(learning_rate=0.001, eps=1e-07, eps_in_max=False)
    """
    arguments.decay_rate(beta_1=beta_1)
    arguments.positive(epsilon=epsilon)
    b2 = decay(beta_2=beta_2)
    direction = scale_by_adamax(beta_1, b2, epsilon, eps_in_max=False)
    whole = adamax(learning_rate, beta_1, b2, epsilon, eps_in_max=False)
    return Rule(whole, between(learning_rate, direction))


@optimizer
def Nadam(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Nadam, whose momentum follows a schedule.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0.
      **options: The options of every optimizer.

    >>> Nadam()
    nadam(learning_rate=0.001, eps=1e-07, momentum_decay=1.0)
    """
    arguments.decay_rate(beta_1=beta_1, beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    direction = scale_by_nadam(beta_1, beta_2, epsilon, momentum_decay=1.0)
    whole = nadam(learning_rate, beta_1, beta_2, epsilon, momentum_decay=1.0)
    return Rule(whole, between(learning_rate, direction))


@optimizer
def Lamb(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    **options: Unpack[Options],
) -> Rule:
    """Keras's Lamb, with weight decay outside the trust ratio.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0.
      **options: The options of every optimizer.

    >>> Lamb(weight_decay=0.1)
    lamb(learning_rate=0.001, eps=1e-07, weight_decay=0.1, decay='before_step')
    """
    arguments.decay_rate(beta_1=beta_1, beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    numbers: dict[str, Any] = {"b1": beta_1, "b2": beta_2, "eps": epsilon}
    whole = lamb(learning_rate, **numbers)

    def decayed(weight_decay, mask):
        if mask is not None:
            return decayed_first(whole, between(learning_rate)(weight_decay, mask))
        numbers["weight_decay"] = weight_decay
        return lamb(learning_rate, **numbers, decay="before_step")

    return Rule(whole, decayed)


@optimizer
def ScheduleFreeAdamW(
    learning_rate: Rate = 0.0025,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    warmup_steps: int = 0,
    **options: Unpack[Options],
) -> Rule:
    """Keras's ScheduleFreeAdamW; `jopt.eval_params` returns the averaged parameters.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Share of the average in the point where gradients are taken, in (0, 1].
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: > 0.
      warmup_steps: Number of steps over which the learning rate rises from zero.
      **options: The options of every optimizer.

    >>> ScheduleFreeAdamW(0.01)
    schedule_free_adamw(learning_rate=0.01, weight_lr_power=0.0)
    """
    arguments.decay_rate(beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    arguments.at_least(0, warmup_steps=warmup_steps)
    whole = schedule_free_adamw(
        learning_rate,
        warmup_steps or None,
        decay(beta_1=beta_1),
        beta_2,
        epsilon,
        weight_lr_power=0.0,
    )
    return Rule(whole)
