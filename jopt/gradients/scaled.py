"""Gradients that are scaled on their way back."""

from __future__ import annotations

from numbers import Number
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt import tree


def scale_gradient(inputs: Any, scale: ArrayLike) -> Any:
    """Return the inputs, whose gradient is multiplied by a number on its way back.

    With -1 this is the gradient reversal of domain-adversarial training, with a small
    number it slows a part of the model down, and with 0 it is ``stop_gradient``.

    Args:
      inputs: Arrays; None stays None.
      scale: The factor of the gradient.

    >>> jax.grad(lambda x: scale_gradient(x, -0.5) ** 2)(3.0)
    Array(-3., dtype=float32)
    """
    if isinstance(scale, Number) and scale == 1:
        return inputs
    if isinstance(scale, Number) and scale == 0:
        return jax.lax.stop_gradient(inputs)
    return _scale_gradient(inputs, scale)


@jax.custom_vjp
def _scale_gradient(inputs: Any, scale: ArrayLike) -> Any:
    return inputs


def _forward(inputs: Any, scale: ArrayLike) -> tuple[Any, ArrayLike]:
    return inputs, scale


def _backward(scale: ArrayLike, gradient: Any) -> tuple[Any, Any]:
    # The factor has no gradient: it is no part of the function.
    return tree.scale(scale, gradient), jnp.zeros_like(scale)


_scale_gradient.defvjp(_forward, _backward)
