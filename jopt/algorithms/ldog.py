"""L-DoG: distance over gradients (`dog`), one step size for each leaf.

    r_t <- max(r_(t-1), |x_t - x_0|)
    x   <- x - g r_t / sqrt(|g_1|^2 + ... + |g_t|^2)            with the norms of a leaf

Ivgi, Hinder & Carmon, "DoG is SGD's best friend: a parameter-free dynamic step size
schedule", 2023, which finds it close to tuned Adam. State: 4 bytes per float32
parameter. As with DoG, evaluate an average of the parameters (`params_ema`,
`params_mean`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.algorithms.distance import root
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


def _all_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(shape)))


class ScaleByDistanceOverGradientsState(NamedTuple):
    """State of `scale_by_distance_over_gradients`."""

    max_dist: Any  # r_t of each leaf, one number
    grad_sum_of_squares: Any  # of each leaf, one number
    init_params: Any  # x_0, like params


@transformation
def scale_by_distance_over_gradients(
    reps_rel: ScalarOrSchedule = 1e-6,
    eps: ScalarOrSchedule = 1e-8,
    param_dtype: StorageDtype | None = None,
    global_scale: ScalarOrSchedule = 1.0,
) -> GradientTransformation:
    """DoG for each leaf: ``u <- g r_t / sqrt(sum |g|^2 + eps)``, with the leaf's norms.

    Args:
      reps_rel: Sets the first distance ``r_0 = reps_rel (1 + |x_0|)``, > 0; 1e-4 with
        batch normalization.
      eps: Added to the sum of squares, > 0.
      param_dtype: Storage dtype of ``init_params``; None means float32 or wider.
      global_scale: Factor for all updates.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is out of range.

    Ivgi, Hinder & Carmon, "DoG is SGD's best friend", 2023, where it is called L-DoG.

    >>> import jopt
    >>> tx, params = jopt.scale_by_distance_over_gradients(5.0), jnp.zeros(2)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].round()
    Array([3., 4.], dtype=float32)
    """
    arguments.positive(reps_rel=reps_rel, eps=eps)
    arguments.finite(global_scale=global_scale)

    def rule(g, max_dist, grad_sum_of_squares, init_params, *, p):
        # `root`, not sqrt: the distance starts at zero, where sqrt has no derivative.
        start = reps_rel * (1 + root(jnp.sum(abs_sq(init_params))))
        dist = jnp.maximum(root(jnp.sum(abs_sq(p - init_params))), start)
        max_dist = jnp.maximum(max_dist, dist.reshape(max_dist.shape))
        squares = jnp.sum(abs_sq(g)).reshape(max_dist.shape)
        grad_sum_of_squares = grad_sum_of_squares + squares
        eta = ratio(global_scale * max_dist, jnp.sqrt(grad_sum_of_squares + eps), eps)
        return eta * g, max_dist, grad_sum_of_squares, init_params

    return leafwise(
        rule,
        state=ScaleByDistanceOverGradientsState,
        max_dist=zeros(real=True, over=_all_axes),
        grad_sum_of_squares=zeros(real=True, over=_all_axes, divides=True),
        init_params=copied(param_dtype),
    )


@transformation
def ldog(
    learning_rate: ScalarOrSchedule = 1.0,
    reps_rel: ScalarOrSchedule = 1e-6,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """L-DoG: gradient descent with a parameter-free step size for each leaf.

        p <- p - learning_rate g r_t / sqrt(sum |g|^2 + eps)

    The step grows with the largest distance ``r_t`` from the initial point, and shrinks
    with the gradients so far. Evaluate an average of the parameters, such as
    `params_mean`.

    Args:
      learning_rate: Factor for all steps, >= 0; the authors recommend 1.
      reps_rel, eps: See `scale_by_distance_over_gradients`.
      weight_decay: Decay that is added to the gradient, >= 0; None means 0.
      mask: See `add_decayed_weights`.
      param_dtype: See `scale_by_distance_over_gradients`.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is out of range.

    Equal to the authors' ``LDoG``, and to optax's `scale_by_distance_over_gradients`.

    >>> import jopt
    >>> jopt.ldog(reps_rel=1e-4)
    ldog(reps_rel=0.0001)
    """
    return chain(
        *decoupled_decay(0.0 if weight_decay is None else weight_decay, mask),
        scale_by_distance_over_gradients(reps_rel, eps, param_dtype),
        scale_by_learning_rate(learning_rate),
    )
