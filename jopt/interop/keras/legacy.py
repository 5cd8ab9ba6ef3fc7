"""The optimizers of Keras up to 2.10, which 2.11 to 2.15 kept under ``legacy``.

They take ``lr`` and ``decay``, have no weight decay, and clip in any combination: by
value, by the norm of each leaf and by the global norm. The epsilon of RMSprop and
Adagrad and the momenta of Nadam differ from Keras 3.
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
from jopt.interop.keras.factories import Factory, KerasOptimizer, Option, P
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


class WithoutDecay(TypedDict, total=False):
    """Options that every optimizer of Keras up to 2.10 takes, except for ``decay``."""

    lr: Rate | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    name: str | None


class Options(WithoutDecay, total=False):
    """All options of the optimizers of Keras up to 2.10, given by name."""

    decay: float


TYPES = get_type_hints(Options, include_extras=True)
DEFAULTS = {"lr": None, "decay": 0.0}
DEFAULTS |= dict.fromkeys(name for name in TYPES if name not in DEFAULTS)
# The entries that replace ``**options`` in the docstring of every optimizer.
TEXTS = {
    "lr": "Older name of `learning_rate`; give only one of them.",
    "decay": "Divide the learning rate by ``1 + decay t``, >= 0.",
    "clipnorm": "Bound on the norm of each leaf of the gradient; None or 0 means no "
    "bound.",
    "clipvalue": "Bound on the magnitude of each element of the gradient, applied "
    "first; None or 0 means no bound.",
    "global_clipnorm": "Bound on the norm of the whole gradient, applied last; None or "
    "0 means no bound.",
    "name": "Name in the config; None means the name of the class.",
}
OPTIONS = {n: Option(x, TYPES[n], TEXTS[n]) for n, x in DEFAULTS.items()}
HINTS = {
    "weight_decay": "Keras 2.11 introduced it: use the optimizer of "
    "jopt.interop.keras.",
}


class LegacyFactory(Factory[P, Any], Generic[P]):
    """A factory with the arguments and numbers of an optimizer of Keras up to 2.10."""

    def __init__(self, build: Callable[P, GradientTransformation]):
        super().__init__(build, None, OPTIONS, HINTS)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> KerasOptimizer:
        """Make a transformation that stands for Keras's optimizer."""
        return cast(KerasOptimizer, super().__call__(*args, **kwargs))

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call, with ``lr`` moved to ``learning_rate``."""
        values = super().bound(args, kwargs)
        if values["lr"] is not None:
            if "learning_rate" in kwargs or args:
                raise TypeError(
                    f"{self.__name__} got both learning_rate and its older name lr: "
                    "give one"
                )
            values["learning_rate"], values["lr"] = values["lr"], None
        if values.get("schedule_decay") is not None:  # Nadam's older name of decay
            values["decay"], values["schedule_decay"] = values["schedule_decay"], None
        if "epsilon" in values:  # Keras has ``epsilon or backend.epsilon()``
            values["epsilon"] = values["epsilon"] or 1e-7
        values["name"] = values["name"] or self.__name__
        return values

    def plain(self, values: dict[str, Any]) -> GradientTransformation:
        """Make the bare transformation from the values of all arguments."""
        values = dict(values)
        norms = {n: values[n] for n in CLIPS}
        arguments.nonnegative(decay=values["decay"], **norms)
        if self.__name__ != "Nadam":  # whose decay is that of the momentum
            rate, decay = values["learning_rate"], values["decay"]
            values["learning_rate"] = decaying(rate, decay)
        tx = super().plain(values)
        clips = clipping(**norms)
        return chain(*clips, tx) if clips else tx


def decaying(rate: Any, decay: float) -> Any:
    """Return the schedule ``rate / (1 + decay t)``, or the rate without decay."""
    if not decay:
        return rate
    if callable(rate):
        return multiply_schedules([rate, inverse_time_decay(1.0, 1, decay)])
    if not isinstance(rate, float):
        raise TypeError(
            f"decay={decay} makes a schedule of the learning rate, which must then be "
            f"a number or a schedule, got learning_rate={abbreviated(rate)}"
        )
    return inverse_time_decay(rate, 1, decay)


def legacy(build: Callable[P, GradientTransformation]) -> LegacyFactory[P]:
    """Turn a function that makes an optimizer of Keras up to 2.10 into a factory."""
    return LegacyFactory(build)


@legacy
def SGD(
    learning_rate: Rate = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
    **options: Unpack[Options],
) -> GradientTransformation:
    """SGD, as in Keras 3.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      momentum: Decay of the momentum, in [0, 1).
      nesterov: Whether to use Nesterov's look-ahead momentum.
      **options: The options of every optimizer.

    >>> SGD(lr=0.1, decay=0.5)
    sgd(
        learning_rate=inverse_time_decay(
            init_value=0.1,
            transition_steps=1,
            decay_rate=0.5,
        ),
    )
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
    """RMSprop, whose epsilon is inside the root only with a momentum.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      rho: Decay of the mean square, in [0, 1).
      momentum: Decay of a momentum of the steps, in [0, 1); 0 means none.
      epsilon: Added to the mean square with a momentum, to its root without, > 0; None
        or 0 means 1e-7.
      centered: Whether to divide by the standard deviation instead.
      **options: The options of every optimizer.

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

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0; None or 0 means 1e-7.
      amsgrad: Whether to divide by the root of the largest second moment so far.
      **options: The options of every optimizer.

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

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      rho: Decay of both mean squares, in [0, 1).
      epsilon: Added to both mean squares, > 0; None or 0 means 1e-7.
      **options: The options of every optimizer.

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
    """Adagrad, whose epsilon is outside the root.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      initial_accumulator_value: Start of the sum of squares, >= 0.
      epsilon: Added to the root of the sum of squares, >= 0; None or 0 means 1e-7.
      **options: The options of every optimizer.

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

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the maximum of the magnitudes, in [0, 1).
      epsilon: Added to the maximum, > 0; None or 0 means 1e-7.
      **options: The options of every optimizer.

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
    **options: Unpack[WithoutDecay],
) -> GradientTransformation:
    """Nadam, whose ``decay`` is that of its momentum.

    Args:
      learning_rate: The step size: a number or `jopt.tunable`, but no schedule.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0; None or 0 means 1e-7.
      decay: How fast the momentum warms up, >= 0.
      schedule_decay: Older name of ``decay``; it takes precedence.
      **options: The options of every optimizer.

    >>> Nadam()
    nadam(learning_rate=0.001, eps=1e-07, momentum_decay=0.004)
    """
    del schedule_decay  # `LegacyFactory.bound` has moved it to decay
    assert epsilon
    arguments.decay_rate(beta_1=beta_1, beta_2=beta_2)
    arguments.positive(epsilon=epsilon)
    if callable(learning_rate):
        raise ValueError(
            "Keras's Nadam took no schedule before 2.11, got learning_rate="
            f"{abbreviated(learning_rate)}: use jopt.interop.keras.Nadam"
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

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      learning_rate_power: <= 0; -0.5 is Adagrad's root, 0 a constant rate.
      initial_accumulator_value: Start of the sum of squares, >= 0.
      l1_regularization_strength: Strength of the L1 penalty, >= 0.
      l2_regularization_strength: Strength of the L2 penalty, >= 0.
      l2_shrinkage_regularization_strength: Strength s >= 0 of an L2 penalty on the
        gradient only, ``g + 2 s p``.
      beta: The paper's smoothing of the rate, >= 0: added to the root of the sum of
        squares.
      **options: The options of every optimizer.

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
