"""Polyak's step size: the loss that remains, divided by the squared gradient norm.

    gamma <- min(max_learning_rate, (f(p) - f_min) / (|g|^2 + eps))
    p     <- p - scaling gamma g

Polyak, "Minimization of unsmooth functionals", 1969; Loizou, Vaswani, Laradji &
Lacoste-Julien, "Stochastic Polyak step-size for SGD", 2021 (sps); Garrigos, Gower &
Schaipp, "Function value learning", 2023 (sps+).

State: none. Pass the loss that the gradient belongs to: ``update(grads, state, params,
value=loss)``. For models that can fit every batch, so that ``f_min`` is zero; if
``f_min`` is too small, the steps are too large at the end.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from jopt import tree
from jopt.core.chain import chain
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def scale_by_polyak(
    f_min: ScalarOrSchedule = 0.0,
    max_learning_rate: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> GradientTransformation:
    """Multiply by Polyak's step size.

        u <- g min(max_learning_rate, (value - f_min) / (|g|^2 + eps))

    A gradient of zero stays zero.

    Args:
      f_min: Lower bound of the loss.
      max_learning_rate: Largest step size, > 0.
      eps: Added to the squared norm, >= 0.
      variant: Response to a value below ``f_min``: ``"sps"`` steps backwards,
        ``"sps+"`` does not step.

    Returns:
      A transformation whose update needs ``value``, the loss at the params.

    Raises:
      ValueError: A number is out of range.

    Loizou, Vaswani, Laradji & Lacoste-Julien, "Stochastic Polyak step-size for SGD",
    2021. Equal to optax, which does not step if the norm is below 1.5e-8.

    >>> import jopt
    >>> tx, grads = jopt.scale_by_polyak(), jnp.array([3.0, 4.0])
    >>> tx.update(grads, tx.init(grads), value=5.0)[0]
    Array([0.6, 0.8], dtype=float32)
    """
    arguments.finite(f_min=f_min)
    arguments.positive(max_learning_rate=max_learning_rate)
    arguments.nonnegative(eps=eps)
    arguments.one_of(("sps", "sps+"), variant=variant)

    def scalars(updates, value):
        norm = tree.norm(updates)
        gap = tree.scalar(value) - f_min
        if variant == "sps+":
            gap = jnp.maximum(gap, 0)
        # Where the square of a small norm underflows, the largest step is right. A step
        # backwards has no limit but the dtype's.
        limits = jnp.finfo(norm.dtype)
        square = jnp.maximum(norm * norm + eps, limits.tiny)
        step = jnp.clip(gap / square, limits.min, max_learning_rate)
        return {"step": jnp.where(norm == 0, 0.0, step)}

    return leafwise(lambda g, *, step: step * g, scalars)


@transformation
def polyak_sgd(
    max_learning_rate: ScalarOrSchedule = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> GradientTransformation:
    """Gradient descent with Polyak's step size.

        p <- p - scaling g min(max_learning_rate, (value - f_min) / (|g|^2 + eps))

    For models that can fit every batch, so that the least loss ``f_min`` is known: the
    step size then needs no tuning. Pass the loss to the update as ``value``.

    Args:
      max_learning_rate: See `scale_by_polyak`.
      scaling: Factor for all step sizes, >= 0. It is called ``learning_rate`` in the
        state, as in `scale_by_learning_rate`.
      f_min, eps, variant: See `scale_by_polyak`.

    Returns:
      A transformation whose update needs ``value``, the loss at the params.

    Raises:
      ValueError: A number is out of range.

    Loizou, Vaswani, Laradji & Lacoste-Julien, "Stochastic Polyak step-size for SGD",
    2021. Equal to optax with ``scaling=1``; optax (0.2.8) divides by other scalings.

    >>> import jax, jopt
    >>> f = lambda p: jnp.sum(p**2)
    >>> tx, params = jopt.polyak_sgd(), jnp.array([1.0, 2.0, 3.0])
    >>> value, grads = jax.value_and_grad(f)(params)
    >>> updates, _ = tx.update(grads, tx.init(params), params, value=value)
    >>> updates.round(4)
    Array([-0.5, -1. , -1.5], dtype=float32)
    """
    return chain(
        scale_by_polyak(f_min, max_learning_rate, eps, variant),
        scale_by_learning_rate(scaling),
    )
