"""The optimizers that Keras had up to 2.10, and under ``legacy`` up to 2.15.

They have ``lr`` and ``decay``, clip in any combination (by value, by norm, by the norm
of all), and no weight decay. Epsilon in RMSprop and Adagrad, and the momenta of Nadam,
differ from Keras 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypedDict, Unpack, cast, get_type_hints

from jopt.algorithms.adadelta import adadelta
from jopt.algorithms.adagrad import adagrad
from jopt.algorithms.adamax import adamax
from jopt.algorithms.ftrl import ftrl
from jopt.algorithms.nadam import nadam
from jopt.algorithms.rmsprop import rmsprop
from jopt.algorithms.sgd import sgd
from jopt.core.chain import chain
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.adams import adam_rule
from jopt.interop.keras.factories import Factory, KerasOptimizer, P
from jopt.interop.keras.legacy_loss_scale import LossScaleOptimizer
from jopt.interop.keras.pipeline import CLIPS, Rate, clipping
from jopt.schedules.inverse import inverse_time_decay
from jopt.schedules.product import multiply_schedules
from jopt.values import arguments
from jopt.values.arguments import abbreviated


__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Adamax",
    "Ftrl",
    "LossScaleOptimizer",
    "Nadam",
    "RMSprop",
]


class Options(TypedDict, total=False):
    """What every optimizer took, by name."""

    lr: Rate | None  # learning_rate, before
    decay: float  # the learning rate is divided by 1 + decay t
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    name: str | None


TYPES = get_type_hints(Options, include_extras=True)
DEFAULTS = dict.fromkeys(TYPES) | {"decay": 0.0}
HINTS = {
    "weight_decay": "Keras 2.11 was the first to have it: take the optimizer of "
    "jopt.interop.keras.",
}


class LegacyFactory(Factory[P, Any], Generic[P]):
    """A factory with the arguments that Keras's optimizers had up to 2.10."""

    def __init__(self, build: Callable[P, GradientTransformation]):
        options = {name: (DEFAULTS[name], TYPES[name]) for name in DEFAULTS}
        super().__init__(build, None, options, HINTS)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> KerasOptimizer:
        """A transformation that stands for Keras's optimizer."""
        return cast(KerasOptimizer, super().__call__(*args, **kwargs))

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments, with ``lr`` under its later name."""
        found = super().bound(args, kwargs)
        if found["lr"] is not None:
            if "learning_rate" in kwargs or args:
                raise TypeError(
                    f"{self.__name__} got both learning_rate and lr, which is the "
                    "older name of it: give one"
                )
            found["learning_rate"], found["lr"] = found["lr"], None
        if found.get("schedule_decay") is not None:  # Nadam's, which is its decay
            found["decay"], found["schedule_decay"] = found["schedule_decay"], None
        if "epsilon" in found:  # as Keras: ``epsilon or backend.epsilon()``
            found["epsilon"] = found["epsilon"] or 1e-7
        found["name"] = found["name"] or self.__name__
        return found

    def plain(self, given: dict[str, Any]) -> GradientTransformation:
        """The transformation, of all arguments."""
        given = dict(given)
        norms = {n: given[n] for n in CLIPS}
        arguments.nonnegative(decay=given["decay"], **norms)
        if self.__name__ != "Nadam":  # there it is the decay of the momentum
            rate, decay = given["learning_rate"], given["decay"]
            given["learning_rate"] = decaying(rate, decay)
        tx = super().plain(given)
        clips = clipping(**norms)
        return chain(*clips, tx) if clips else tx


def decaying(rate: Any, decay: float) -> Any:
    """``rate / (1 + decay t)``."""
    if not decay:
        return rate
    if callable(rate):
        return multiply_schedules([rate, inverse_time_decay(1.0, 1, decay)])
    if not isinstance(rate, float):
        raise TypeError(
            f"decay={decay} makes a schedule of the learning rate, which must be a "
            f"number or a schedule then, got learning_rate={abbreviated(rate)}"
        )
    return inverse_time_decay(rate, 1, decay)


def legacy(build: Callable[P, GradientTransformation]) -> LegacyFactory[P]:
    """Decorates what makes an optimizer of Keras up to 2.10."""
    return LegacyFactory(build)


@legacy
def SGD(
    learning_rate: Rate = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
    **options: Unpack[Options],
) -> GradientTransformation:
    """SGD, as in Keras 3.

    >>> SGD(lr=0.1, decay=0.5)
    sgd(learning_rate=inverse_time_decay(init_value=0.1, transition_steps=1, \
decay_rate=0.5))
    """
    arguments.decay_rate(momentum=momentum)
    if not momentum:
        return sgd(learning_rate)
    return sgd(learning_rate, momentum, nesterov, lr_in_momentum=True)


@legacy
def RMSprop(
    learning_rate: Rate = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float | None = 1e-7,
    centered: bool = False,
    **options: Unpack[Options],
) -> GradientTransformation:
    """RMSprop, whose epsilon is under the root only if there is a momentum.

    >>> RMSprop(lr=1e-4)
    rmsprop(learning_rate=0.0001, eps=1e-07, eps_in_sqrt=False)
    """
    assert epsilon is not None
    arguments.decay_rate(rho=rho, momentum=momentum)
    arguments.positive(epsilon=epsilon)
    return rmsprop(
        learning_rate,
        rho,
        epsilon,
        eps_in_sqrt=momentum > 0,
        centered=centered,
        momentum=momentum or None,
    )


@legacy
def Adam(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float | None = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[Options],
) -> GradientTransformation:
    """Adam, as in Keras 3.

    >>> Adam(lr=0.01)
    adam(learning_rate=0.01, eps=1e-07, eps_mode='before')
    """
    assert epsilon is not None
    return adam_rule(learning_rate, beta_1, beta_2, epsilon, amsgrad).whole


@legacy
def Adadelta(
    learning_rate: Rate = 0.001,
    rho: float = 0.95,
    epsilon: float | None = 1e-7,
    **options: Unpack[Options],
) -> GradientTransformation:
    """Adadelta, as in Keras 3.

    >>> Adadelta(lr=1.0)
    adadelta(learning_rate=1.0, rho=0.95, eps=1e-07)
    """
    assert epsilon is not None
    arguments.decay_rate(rho=rho)
    arguments.positive(epsilon=epsilon)
    return adadelta(learning_rate, rho, epsilon)


@legacy
def Adagrad(
    learning_rate: Rate = 0.001,
    initial_accumulator_value: float = 0.1,
    epsilon: float | None = 1e-7,
    **options: Unpack[Options],
) -> GradientTransformation:
    """Adagrad, whose epsilon is added to the root.

    >>> Adagrad(lr=0.01)
    adagrad(learning_rate=0.01, eps_in_sqrt=False)
    """
    assert epsilon is not None
    arguments.nonnegative(initial_accumulator_value=initial_accumulator_value)
    arguments.positive(epsilon=epsilon)
    return adagrad(learning_rate, initial_accumulator_value, epsilon, eps_in_sqrt=False)


@legacy
def Adamax(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float | None = 1e-7,
    **options: Unpack[Options],
) -> GradientTransformation:
    """Adamax, as in Keras 3.

    >>> Adamax()
    adamax(learning_rate=0.001, eps=1e-07, eps_in_max=False)
    """
    assert epsilon is not None
    arguments.decay_rate(beta_1=beta_1, beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    return adamax(learning_rate, beta_1, beta_2, epsilon, eps_in_max=False)


@legacy
def Nadam(
    learning_rate: Rate = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float | None = 1e-7,
    *,
    decay: float = 0.004,
    schedule_decay: float | None = None,
    lr: Rate | None = None,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Nadam; ``decay``, also ``schedule_decay``, is that of its momentum.

    >>> Nadam()
    nadam(learning_rate=0.001, eps=1e-07, momentum_decay=0.004)
    """
    # As of all others, and schedule_decay is in decay.
    del lr, schedule_decay, clipnorm, clipvalue, global_clipnorm, name
    assert epsilon
    arguments.decay_rate(beta_1=beta_1, beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    if callable(learning_rate):
        raise ValueError(
            "Keras's Nadam took no schedule before 2.11, got learning_rate="
            f"{abbreviated(learning_rate)}: take jopt.interop.keras.Nadam"
        )
    return nadam(learning_rate, beta_1, beta_2, epsilon, momentum_decay=decay)


@legacy
def Ftrl(
    learning_rate: Rate = 0.001,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
    **options: Unpack[Options],
) -> GradientTransformation:
    """FTRL, as in Keras 3.

    >>> Ftrl(lr=0.1)
    ftrl(learning_rate=0.1)
    """
    return ftrl(
        learning_rate,
        learning_rate_power,
        initial_accumulator_value,
        l1_regularization_strength,
        l2_regularization_strength,
        l2_shrinkage_regularization_strength,
        beta,
    )
