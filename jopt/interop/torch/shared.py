"""Helpers of torch's optimizers: order of members, pairs of numbers, products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jopt.core.chain import chain
from jopt.core.transformation import GradientTransformation
from jopt.schedules.decay import constant_schedule
from jopt.schedules.product import multiply_schedules
from jopt.transforms.learning_rate import scale
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import Tunable, normalize
from jopt.wrappers.complex_leaves import split_real_and_imaginary


Betas = tuple[Any, Any]  # two hyperparameters


def after(
    maximize: bool, l2: Any, *members: GradientTransformation
) -> GradientTransformation:
    """Chain members after torch's ``maximize`` and L2 penalty on the gradient."""
    # In this order: the penalty shrinks the parameters also when maximizing.
    first = [scale(-1.0)] if maximize else []
    if not is_zero(l2):
        first.append(add_decayed_weights(l2))
    chained = [*first, *members]
    return chain(*chained) if len(chained) > 1 else chained[0]


def in_pairs(
    maximize: bool, l2: Any, *members: GradientTransformation
) -> GradientTransformation:
    """Chain as `after` does, for an optimizer that squares or compares gradients.

    torch computes with the real and imaginary parts of a complex number.
    """
    return split_real_and_imaginary(after(maximize, l2, *members))


def number_of(value: Any) -> Any:
    """Return a tensor of torch with one element as a number, also within a pair."""
    if isinstance(value, tuple):
        return tuple(map(number_of, value))
    is_tensor = hasattr(value, "detach") and hasattr(value, "numel")
    return value.item() if is_tensor and value.numel() == 1 else value


def unrefused(check: Callable[..., None], **values: Any) -> Any:
    """Return a hyperparameter that torch allows, in a form that jopt's factories take.

    Their checks are for constants. So a constant outside their range, such as a
    momentum of 1 or an ``eps`` of 0, becomes a schedule and a number of the state.
    """
    (value,) = values.values()
    if isinstance(value, float):
        try:
            check(**values)
        except ValueError:
            return constant_schedule(value)
    return value


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the constant 0."""
    return isinstance(value, float) and value == 0


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """Check and return two hyperparameters."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers, got {name}={text_of(value)}")
    first, second = (normalize(f"{name}[{i}]", x) for i, x in enumerate(value))
    return first, second


def decays(betas: Betas) -> tuple[Any, Any]:
    """Check and return the decays ``betas``."""
    b1, b2 = pair("betas", betas)
    arguments.decay_rate(**{"betas[0]": b1, "betas[1]": b2})
    return b1, b2


def times(name: str, rate: Any, function: Any) -> Any:
    """Return the schedule of a learning rate times a function of the step."""
    if isinstance(rate, Tunable):
        raise TypeError(
            f"{name} makes a schedule of lr, which cannot be tunable then, got "
            f"lr={text_of(rate)}"
        )
    return multiply_schedules([rate, function])
