"""torch's gradient clipping by its own names, to chain before the optimizer."""

from __future__ import annotations

import math

from jopt.core.transformation import GradientTransformation
from jopt.transforms.clipping import clip, clip_by_global_norm
from jopt.values import arguments


def clip_grad_norm_(max_norm: float, norm_type: float = 2.0) -> GradientTransformation:
    """Bound the norm of all gradients: ``u <- g min(1, max_norm / (|G| + 1e-6))``.

    An infinite or NaN norm makes all updates NaN, which can be noticed or skipped. In
    torch they become zero, except for the infinite elements.

    Args:
      max_norm: The bound, > 0.
      norm_type: Order of the norm: 1, 2 or ``math.inf``.

    Returns:
      A transformation to chain before the optimizer.

    Raises:
      ValueError: ``max_norm`` is not positive, or ``norm_type`` is another number.

    >>> clip_grad_norm_(1.0)
    clip_by_global_norm(max_norm=1.0, eps=1e-06)
    """
    arguments.one_of((1.0, 2.0, math.inf), norm_type=norm_type)
    return clip_by_global_norm(max_norm, ord=norm_type, eps=1e-6)


def clip_grad_value_(clip_value: float) -> GradientTransformation:
    """Clip each element to ``[-clip_value, clip_value]``.

    Args:
      clip_value: The bound, > 0.

    Returns:
      A transformation to chain before the optimizer.

    Raises:
      ValueError: ``clip_value`` is not positive.

    >>> clip_grad_value_(0.5)
    clip(max_delta=0.5)
    """
    return clip(clip_value)
