"""Normalize updates, or scale them by the norm of their parameter."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation, Updates
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def normalize() -> GradientTransformation:
    """Divide by the norm of all updates together: ``u <- g / |G|``.

    Zero updates stay zero. If the norm is inf or NaN, all updates are NaN.

    Returns:
      A transformation without state.

    Hazan, Levy & Shalev-Shwartz, "Beyond convexity: stochastic quasi-convex
    optimization", 2015. Same as optax, except that there zero becomes NaN.

    >>> import jopt
    >>> tx = jopt.normalize()
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
    Array([0.6, 0.8], dtype=float32)
    """
    return leafwise(lambda g, *, norm: g / norm, _norm)


def _norm(updates: Updates) -> dict[str, jax.Array]:
    """Return the norm to divide by: 1 instead of 0, NaN instead of inf."""
    norm = tree.norm(updates)
    # Dividing by an infinite norm would give zeros, which look like a valid step.
    return {
        "norm": jnp.where(jnp.isfinite(norm), jnp.where(norm > 0, norm, 1), jnp.nan)
    }


@transformation
def normalize_by_update_norm(
    scale_factor: ScalarOrSchedule = 1.0, eps: ScalarOrSchedule = 1e-6
) -> GradientTransformation:
    """Scale all updates together to one norm: ``u <- scale_factor g / (|G| + eps)``.

    If the norm is inf or NaN, all updates are NaN.

    Args:
      scale_factor: The new norm, of any sign.
      eps: Added to the norm, >= 0.

    Returns:
      A transformation.

    Raises:
      ValueError: ``eps`` is negative, or an argument is not finite.

    >>> import jopt
    >>> tx = jopt.normalize_by_update_norm(-10.0, eps=0.0)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
    Array([-6., -8.], dtype=float32)
    """
    arguments.finite(scale_factor=scale_factor)
    arguments.nonnegative(eps=eps)
    return leafwise(lambda g, *, norm: scale_factor * (g / (norm + eps)), _norm)


@transformation
def scale_by_param_block_norm(
    min_scale: ScalarOrSchedule = 1e-3,
) -> GradientTransformation:
    """Multiply each leaf by the norm of its parameter: ``u <- g max(|p|, min_scale)``.

    Args:
      min_scale: The smallest factor, >= 0, so that zero parameters can grow.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``min_scale`` is negative.

    >>> import jopt
    >>> tx, params = jopt.scale_by_param_block_norm(), jnp.array([3.0, 4.0])
    >>> tx.update(jnp.ones(2), tx.init(params), params)[0]
    Array([5., 5.], dtype=float32)
    """
    arguments.nonnegative(min_scale=min_scale)
    return leafwise(
        lambda g, *, p: g * jnp.maximum(tree.norm_along(p, None), min_scale)
    )


@transformation
def scale_by_param_block_rms(
    min_scale: ScalarOrSchedule = 1e-3,
) -> GradientTransformation:
    """Multiply each leaf by the root mean square of its parameter.

        u <- g max(|p| / sqrt(size), min_scale)

    Args:
      min_scale: See `scale_by_param_block_norm`.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``min_scale`` is negative.

    Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
    2018.

    >>> import jopt
    >>> tx, params = jopt.scale_by_param_block_rms(), jnp.array([1.0, 7.0])
    >>> tx.update(jnp.ones(2), tx.init(params), params)[0]
    Array([5., 5.], dtype=float32)
    """
    arguments.nonnegative(min_scale=min_scale)

    def rule(g, *, p):
        rms = tree.norm_along(p, None) / math.sqrt(max(p.size, 1))
        return g * jnp.maximum(rms, min_scale)

    return leafwise(rule)
