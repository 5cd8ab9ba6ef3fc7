"""Keras's LossScaleOptimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.factories import Factory, KerasOptimizer, Remembered
from jopt.values import arguments
from jopt.wrappers.loss_scale import dynamic_loss_scale


# The first configs of Keras 3 also had these keys, always with these values.
UNUSED: dict[str, Any] = {
    **dict.fromkeys(("weight_decay", "clipnorm", "global_clipnorm", "clipvalue")),
    **{"use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None},
    **{"loss_scale_factor": None, "gradient_accumulation_steps": None},
}
HINTS = {
    "loss_scale": "TensorFlow 2.3 had it: give the loss scale as initial_scale.",
    "optimizer": "Give it as inner_optimizer.",
    **dict.fromkeys(UNUSED, "Give it to the inner_optimizer."),
}


def with_factor(tx: Any, loss_scale_factor: float | None) -> Any:
    """Return a Keras optimizer with another loss_scale_factor, others as they are."""
    if not isinstance(tx, Remembered) or "loss_scale_factor" not in tx.spec.arguments:
        return tx
    factor = {"loss_scale_factor": loss_scale_factor}
    return tx.spec.factory(**(tx.spec.arguments | factor))


class WrapperFactory(Factory[..., Any]):
    """A factory of a Keras optimizer that contains other optimizers."""

    def __call__(self, *args: Any, **kwargs: Any) -> KerasOptimizer:
        """Make a transformation that stands for Keras's optimizer."""
        return cast(KerasOptimizer, super().__call__(*args, **kwargs))


class LossScaleFactory(WrapperFactory):
    """The factory of `LossScaleOptimizer`."""

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call; remove the inner optimizer's own scale."""
        kwargs = {n: x for n, x in kwargs.items() if n not in UNUSED or x != UNUSED[n]}
        if not kwargs.pop("dynamic", True):
            raise ValueError(
                "Keras 3's LossScaleOptimizer is always dynamic, got dynamic=False: "
                "give a fixed scale to the optimizer itself, as loss_scale_factor"
            )
        values = super().bound(args, kwargs)
        # Keras ignores it too: the dynamic scale replaces it.
        values["inner_optimizer"] = with_factor(values["inner_optimizer"], None)
        return values


def wrapper(build: Callable[..., GradientTransformation]) -> LossScaleFactory:
    """Turn the function that makes the LossScaleOptimizer into a factory."""
    return LossScaleFactory(build, "keras.optimizers", hints=HINTS)


@wrapper
def LossScaleOptimizer(
    inner_optimizer: Any,
    initial_scale: float = 32768.0,
    dynamic_growth_steps: int = 2000,
    name: str | None = None,
) -> GradientTransformation:
    """Keras 3's dynamic loss scale; `jopt.scale_loss` scales the loss.

    Args:
      inner_optimizer: A transformation; its loss_scale_factor has no effect.
      initial_scale: The loss scale at first, > 0.
      dynamic_growth_steps: Number of finite steps after which the scale doubles, >= 1.
      name: Name in the config; None means the name of the class in snake case.

    >>> from jopt.interop.keras import SGD
    >>> LossScaleOptimizer(SGD(0.1), initial_scale=4.0).get_config()["initial_scale"]
    4.0
    """
    del name
    arguments.positive(initial_scale=initial_scale)
    arguments.at_least(1, dynamic_growth_steps=dynamic_growth_steps)
    return dynamic_loss_scale(
        as_transformation(inner_optimizer, "LossScaleOptimizer: inner_optimizer"),
        "keras",
        init_scale=initial_scale,
        growth_interval=dynamic_growth_steps,
    )
