"""DoWG, distance over weighted gradients: DoG with more weight on late gradients.

    r_t^2 <- max(r_(t-1)^2, |x_t - x_0|^2)
    v_t   <- v_(t-1) + r_t^2 |g_t|^2
    x     <- x - g r_t^2 / (sqrt(v_t) + eps)

Khaled, Mishchenko & Jin, "DoWG unleashed: an efficient universal parameter-free
gradient descent method", 2023.

State: 4 bytes per float32 parameter, for the initial point. Keep the learning rate at
1. The weights make DoWG bolder than `dog`; it is meant for full gradients, or batches
with little noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.distance import squared_distance
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByDowgState(NamedTuple):
    """State of `scale_by_dowg`."""

    estim_sq_dist: jax.Array  # float32 scalar, r_t^2
    weighted_sq_norm_grads: jax.Array  # float32 scalar, v_t
    init_params: Any  # x_0, like params


@transformation
def scale_by_dowg(
    init_estim_sq_dist: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-4,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Multiply by distance over gradients: ``u <- g r_t^2 / (sqrt(v_t) + eps)``.

    Args:
      init_estim_sq_dist: The smallest ``r_t^2``, > 0; None means ``eps``.
      eps: Added to the square root, > 0.
      param_dtype: Storage dtype of ``init_params``; None means float32 or wider.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is not positive.

    Khaled, Mishchenko & Jin, "DoWG unleashed", 2023.

    >>> import jopt
    >>> tx, params = jopt.scale_by_dowg(25.0), jnp.zeros(2)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].round()
    Array([3., 4.], dtype=float32)
    """
    arguments.positive(eps=eps)
    if init_estim_sq_dist is None:
        smallest = eps
    else:
        arguments.positive(init_estim_sq_dist=init_estim_sq_dist)
        smallest = init_estim_sq_dist

    def scalars(updates, params, init_params, estim_sq_dist, weighted_sq_norm_grads):
        current = jnp.maximum(squared_distance(params, init_params), smallest)
        r2 = jnp.maximum(estim_sq_dist, current)
        v = weighted_sq_norm_grads + r2 * tree.norm(updates, squared=True)
        return {
            "eta": ratio(r2, jnp.sqrt(v) + eps, eps),
            "estim_sq_dist": r2,
            "weighted_sq_norm_grads": v,
        }

    def rule(g, init_params, *, eta):
        return eta * g, init_params

    return leafwise(
        rule,
        scalars,
        ScaleByDowgState,
        carry={"estim_sq_dist": 0.0, "weighted_sq_norm_grads": 0.0},
        init_params=copied(param_dtype),
    )


@transformation
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-4,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """DoWG: gradient descent with a step size of distance over weighted gradients.

        p <- p - learning_rate g r_t^2 / (sqrt(v_t) + eps)

    Args:
      learning_rate: Factor for all steps, >= 0; 1 in the paper.
      init_estim_sq_dist, eps: See `scale_by_dowg`.
      weight_decay: Strength of the L2 penalty, >= 0: ``weight_decay p`` is added to the
        gradient. None means 0.
      mask: See `add_decayed_weights`.
      param_dtype: See `scale_by_dowg`.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of range.

    Khaled, Mishchenko & Jin, "DoWG unleashed", 2023. Matches optax and, apart from
    ``eps``, the paper.

    >>> import jopt
    >>> jopt.dowg(init_estim_sq_dist=1e-3)
    dowg(init_estim_sq_dist=0.001)
    """
    return chain(
        *decoupled_decay(0.0 if weight_decay is None else weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps, param_dtype=param_dtype),
        scale_by_learning_rate(learning_rate),
    )
