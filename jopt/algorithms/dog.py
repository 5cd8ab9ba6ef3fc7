"""DoG, distance over gradients: the distance covered so far sets the step size.

    r_t <- max(r_(t-1), |x_t - x_0|)
    x   <- x - g r_t / sqrt(|g_1|^2 + ... + |g_t|^2)

Ivgi, Hinder & Carmon, "DoG is SGD's best friend: a parameter-free dynamic step size
schedule", 2023. `ldog` applies it leaf by leaf.

State: 4 bytes per float32 parameter, for the initial point. Keep the learning rate at
1. Evaluate with an average of the parameters (`params_ema`, `params_mean`). Steps of
1e-6 of the parameters' size do not change bfloat16 parameters: start with larger ones.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.distance import distance
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


InitStep = tuple[Literal["distance", "learning_rate", "heuristic"], float]


class ScaleByDogState(NamedTuple):
    """State of `scale_by_dog`."""

    count: jax.Array  # int32 scalar, updates so far
    max_dist: jax.Array  # float32 scalar, r_t
    sum_sq_norm_grads: jax.Array  # float32 scalar
    init_params: Any  # x_0, like params


@transformation
def scale_by_dog(
    init_step: InitStep = ("heuristic", 1e-6),
    eps: ScalarOrSchedule = 1e-8,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Multiply by distance over gradients: ``u <- g r_t / sqrt(sum |g|^2 + eps)``.

    Args:
      init_step: The start, before there is a distance. ``("distance", r_0)`` sets r_0.
        ``("heuristic", a)`` sets ``r_0 = a (1 + |x_0|)``; the authors recommend an a of
        1e-6, or 1e-4 with batch normalization. ``("learning_rate", eta)`` sets the
        first step size.
      eps: Added to the sum of squares, > 0.
      param_dtype: Storage dtype of ``init_params``; None means float32 or wider.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is not positive, or the kind of ``init_step`` is unknown.
      TypeError: ``init_step`` is not a pair.

    Ivgi, Hinder & Carmon, "DoG is SGD's best friend", 2023.

    >>> import jopt
    >>> tx, params = jopt.scale_by_dog(("distance", 5.0)), jnp.zeros(2)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].round()
    Array([3., 4.], dtype=float32)
    """
    kind, value = _check_init_step(init_step)
    arguments.positive(eps=eps)

    def scalars(t, updates, params, init_params, max_dist, sum_sq_norm_grads):
        max_dist = jnp.maximum(max_dist, distance(params, init_params))
        if kind == "distance":
            max_dist = jnp.maximum(max_dist, value)
        elif kind == "heuristic":
            # The state keeps r_0 from the first step on: later ones skip this norm.
            start = jax.lax.cond(
                t > 1, lambda: 0 * t, lambda: value * (1 + tree.norm(init_params))
            )
            max_dist = jnp.maximum(max_dist, start)
        sum_sq_norm_grads = sum_sq_norm_grads + tree.norm(updates, squared=True)
        eta = ratio(max_dist, jnp.sqrt(sum_sq_norm_grads + eps), eps)
        if kind == "learning_rate":
            eta = jnp.where(t > 1, eta, value)
        return {
            "eta": eta,
            "max_dist": max_dist,
            "sum_sq_norm_grads": sum_sq_norm_grads,
        }

    def rule(g, init_params, *, eta):
        return eta * g, init_params

    return leafwise(
        rule,
        scalars,
        ScaleByDogState,
        carry={"max_dist": 0.0, "sum_sq_norm_grads": 0.0},
        init_params=copied(param_dtype),
    )


def _check_init_step(init_step: Any) -> InitStep:
    if not isinstance(init_step, tuple | list) or len(init_step) != 2:
        raise TypeError(
            'init_step must be a pair such as ("heuristic", 1e-6), got '
            f"init_step={text_of(init_step)}"
        )
    kind, value = init_step
    arguments.one_of(
        ("distance", "learning_rate", "heuristic"), **{"init_step[0]": kind}
    )
    arguments.positive(**{"init_step[1]": value})
    return kind, value


@transformation
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: InitStep = ("heuristic", 1e-6),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    param_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """DoG: gradient descent with a step size of distance over gradients.

        p <- p - learning_rate g r_t / sqrt(sum |g|^2 + eps)

    Args:
      learning_rate: Factor for all steps, >= 0; the authors recommend 1.
      init_step, eps: See `scale_by_dog`.
      weight_decay: Strength of the L2 penalty, >= 0: ``weight_decay p`` is added to the
        gradient. None means 0.
      mask: See `add_decayed_weights`.
      param_dtype: See `scale_by_dog`.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of range, or the kind of ``init_step`` is unknown.
      TypeError: ``init_step`` is not a pair.

    Ivgi, Hinder & Carmon, "DoG is SGD's best friend", 2023. Matches the authors'
    ``DoG``, and optax, which computes everything in the parameters' dtype: in bfloat16
    its sum stops at 2048 (0.2.8).

    >>> import jopt
    >>> jopt.dog(init_step=("distance", 0.01))
    dog(init_step=('distance', 0.01))
    """
    return chain(
        *decoupled_decay(0.0 if weight_decay is None else weight_decay, mask),
        scale_by_dog(init_step, eps, param_dtype=param_dtype),
        scale_by_learning_rate(learning_rate),
    )
