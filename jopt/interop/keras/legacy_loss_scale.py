"""The LossScaleOptimizer of Keras 2, whose scale is at least 1 and can be fixed."""

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
    """Turn a function that wraps optimizers as Keras 2 does into a factory."""
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

    It divides the gradients itself, so ``get_unscaled_gradients`` of Keras 2 is not
    needed. It does not count skipped steps; Keras 2 counts them.

    Args:
      inner_optimizer: A transformation.
      dynamic: Whether the scale changes.
      initial_scale: The loss scale at first, > 0. None means 2^15; a fixed scale needs
        a value.
      dynamic_growth_steps: Number of finite steps after which the scale doubles, >= 1;
        None means 2000. A fixed scale takes none.
      name: Name in the config.

    Raises:
      ValueError: ``dynamic`` is False, and ``initial_scale`` is None or
        ``dynamic_growth_steps`` is not.

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
                "a fixed scale (dynamic=False) needs initial_scale and takes no "
                f"dynamic_growth_steps, got initial_scale={initial_scale}, "
                f"dynamic_growth_steps={dynamic_growth_steps}"
            )
        return chain(scale(1 / initial_scale), inner)
    steps = 2000 if dynamic_growth_steps is None else dynamic_growth_steps
    arguments.at_least(1, dynamic_growth_steps=steps)
    return dynamic_loss_scale(
        inner, "keras2", init_scale=initial_scale, growth_interval=steps
    )


# The argument names of TensorFlow 2.3's loss scale objects, and the later ones.
FIXED = {"loss_scale_value": "initial_scale"}
DYNAMIC = {
    "initial_loss_scale": "initial_scale",
    "increment_period": "dynamic_growth_steps",
}


def since_2_4(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a config of LossScaleOptimizer from TensorFlow 2.3 to the later form.

    Args:
      config: Has "optimizer" and "loss_scale", the config of a loss scale object.

    Raises:
      ValueError: "loss_scale" is not such a config, or its multiplier is not 2.

    >>> scale = {"class_name": "FixedLossScale", "config": {"loss_scale_value": 8.0}}
    >>> since_2_4({"optimizer": {}, "loss_scale": scale})
    {'dynamic': False, 'initial_scale': 8.0, 'inner_optimizer': {}}
    """
    converted = dict(config)
    scale = converted.pop("loss_scale")
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
            "doubles and halves. Use jopt.dynamic_loss_scale(growth_factor=…)"
        )
    later_names = DYNAMIC if dynamic else FIXED
    if unknown := sorted(numbers.keys() - later_names.keys()):
        raise ValueError(f"{kind} has no {unknown}; it has {', '.join(later_names)}")
    converted |= {"dynamic": dynamic}
    converted |= {later_names[n]: x for n, x in numbers.items()}
    if "optimizer" in converted:
        converted["inner_optimizer"] = converted.pop("optimizer")
    return converted
