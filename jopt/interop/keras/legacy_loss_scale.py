"""The LossScaleOptimizer of Keras 2, whose scale is at least 1, and may be fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jopt.core.chain import as_transformation, chain
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.factories import Factory
from jopt.transforms.learning_rate import scale
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.wrappers.loss_scale import dynamic_loss_scale


def legacy_wrapper(build: Any) -> Factory[..., Any]:
    """Decorates what makes an optimizer of Keras 2 around others."""
    return Factory(build, None)


@legacy_wrapper
def LossScaleOptimizer(
    inner_optimizer: Any,
    dynamic: bool = True,
    initial_scale: float | None = None,
    dynamic_growth_steps: int | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Keras 2's loss scale; `jopt.scale_loss` scales the loss.

    The gradients are divided here, where Keras 2 had ``get_unscaled_gradients``. A step
    that is skipped is not counted; Keras 2 counted it.

    Args:
      inner_optimizer: A transformation.
      dynamic: Whether the scale changes.
      initial_scale: > 0; None is 2^15, and an error for a fixed scale.
      dynamic_growth_steps: After how many finite steps it doubles; None is 2000.
      name: Kept for the config.

    Raises:
      ValueError: A fixed scale is not given, or a growth for it is.

    >>> from jopt.interop.keras import legacy
    >>> legacy.LossScaleOptimizer(legacy.SGD(0.1), False, 2.0)
    chain(scale(step_size=0.5), sgd(learning_rate=0.1))
    """
    del name
    inner = as_transformation(inner_optimizer, "LossScaleOptimizer: inner_optimizer")
    arguments.positive(initial_scale=initial_scale)
    if not dynamic:
        if initial_scale is None or dynamic_growth_steps is not None:
            raise ValueError(
                "dynamic=False is a fixed scale: it needs an initial_scale and no "
                f"dynamic_growth_steps, got initial_scale={initial_scale}, "
                f"dynamic_growth_steps={dynamic_growth_steps}"
            )
        return chain(scale(1 / initial_scale), inner)
    steps = 2000 if dynamic_growth_steps is None else dynamic_growth_steps
    arguments.at_least(1, dynamic_growth_steps=steps)
    return dynamic_loss_scale(
        inner, "keras2", init_scale=initial_scale, growth_interval=steps
    )


# What a loss scale object of TensorFlow 2.3 calls the arguments.
FIXED = {"loss_scale_value": "initial_scale"}
DYNAMIC = {
    "initial_loss_scale": "initial_scale",
    "increment_period": "dynamic_growth_steps",
}


def since_2_4(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of LossScaleOptimizer from TensorFlow 2.3, as later ones have it.

    Args:
      config: With "optimizer" and "loss_scale", which is the config of an object.

    Raises:
      ValueError: It is none of that, or the scale changes by another factor than 2.

    >>> scale = {"class_name": "FixedLossScale", "config": {"loss_scale_value": 8.0}}
    >>> since_2_4({"optimizer": {}, "loss_scale": scale})
    {'dynamic': False, 'initial_scale': 8.0, 'inner_optimizer': {}}
    """
    found = dict(config)
    scale = found.pop("loss_scale")
    kind, numbers = (
        (scale.get("class_name"), scale.get("config"))
        if isinstance(scale, Mapping)
        else (None, None)
    )
    dynamic = kind == "DynamicLossScale"
    if not (dynamic or kind == "FixedLossScale") or not isinstance(numbers, Mapping):
        raise ValueError(
            "loss_scale must be the config of a FixedLossScale or a DynamicLossScale, "
            f"got loss_scale={abbreviated(scale)}"
        )
    numbers = dict(numbers)
    multiplier = numbers.pop("multiplier", 2.0) if dynamic else 2.0
    if multiplier != 2:
        raise ValueError(
            f"a {kind} with multiplier={multiplier} cannot be read: Keras's loss scale "
            "doubles and halves. jopt.dynamic_loss_scale(growth_factor=…) takes others"
        )
    known = DYNAMIC if dynamic else FIXED
    if unknown := sorted(numbers.keys() - known.keys()):
        raise ValueError(f"{kind} has no {unknown}; it has {', '.join(known)}")
    found |= {"dynamic": dynamic} | {known[n]: x for n, x in numbers.items()}
    if "optimizer" in found:
        found["inner_optimizer"] = found.pop("optimizer")
    return found
