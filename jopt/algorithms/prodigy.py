"""Prodigy: Adam that estimates its learning rate, faster than D-Adaptation.

    step <- d lr_t                             d is a lower bound of |x_0 - x*|
    m    <- b1 m + (1 - b1) d g
    v    <- b2 v + (1 - b2) d^2 g^2
    a    <- b3 a + (d / d_0) step <g, x_0 - p>
    s    <- b3 s + (d / d_0) step g
    d'   <- max(d, coef a / |s|_1)
    p    <- p - step (m / (sqrt(v) + d' eps) + weight_decay p)

Mishchenko & Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", 2024.

State: 16 bytes per float32 parameter. The learning rate is 1, or a schedule with peak
1, such as a cosine. If anything needs tuning, it is ``estim_lr_coef``, from 0.5 to 2.
It is popular for fine-tuning, and for adapters of diffusion models.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.dadapt import adam_correction, check_betas, next_size
from jopt.algorithms.distance import total
from jopt.core.chain import optimizer
from jopt.core.factory import StorageDtype
from jopt.core.leafwise import copied, leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ProdigyState(NamedTuple):
    """State of `prodigy`."""

    count: jax.Array  # int32 scalar, updates so far
    exp_avg: Any  # m, like params
    exp_avg_sq: Any  # v, like params
    grad_sum: Any  # s, like params
    params0: Any  # x_0, like params
    estim_lr: jax.Array  # float32 scalar, d
    estim_lr_max: jax.Array  # float32 scalar, d without the bound on its growth
    numerator_weighted: jax.Array  # float32 scalar, a


@optimizer
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    *,
    use_bias_correction: bool = False,
    growth_rate: ScalarOrSchedule | None = None,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    params0_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Prodigy: AdamW that estimates its own learning rate.

        p <- p - d lr_t (m / (sqrt(v) + d eps) + weight_decay p)

    The estimate ``d`` grows from ``estim_lr0`` towards the distance to the solution.
    Leave the learning rate at 1, or give a schedule with peak 1, such as a cosine.

    Args:
      learning_rate: Factor for all steps, >= 0: 1, or a schedule with peak 1.
      betas: Decays of the two moments, each in [0, 1).
      beta3: Decay of the sums from which ``d`` is estimated, in [0, 1); None means
        ``sqrt(betas[1])``.
      eps: Multiplied by ``d`` and added to the root, > 0.
      estim_lr0: Initial ``d``, > 0. With bfloat16 parameters, start where steps are
        about 1e-3 of the parameters, because smaller ones are rounded away.
      estim_lr_coef: Factor for the estimate of ``d``, > 0; 0.5 to 2.
      weight_decay: Decoupled decay, >= 0, multiplied by the step. For L2 decay, chain
        `add_decayed_weights` before instead.
      safeguard_warmup: If True, leave the learning rate out of ``s``, so that a warmup
        does not make ``d`` too large.
      use_bias_correction: Whether to multiply the step by Adam's bias correction.
      growth_rate: Largest factor by which ``d`` grows in a step, >= 1, such as 1.02;
        None is unbounded. The first growth is never bounded.
      mu_dtype: Storage dtype of ``exp_avg``; None means float32 or wider.
      nu_dtype: Storage dtype of ``exp_avg_sq``; None means float32 or wider.
      params0_dtype: Storage dtype of ``params0``; None means float32 or wider. The
        dtype of the parameters loses nothing.

    Returns:
      A transformation that needs params. Its state holds the current d as ``estim_lr``.

    Raises:
      ValueError: A number is out of range.
      TypeError: A leaf is complex.

    Equal to the authors' ``Prodigy``; with ``use_bias_correction=True`` to optax, which
    computes ``d`` in the parameters' dtype and stays NaN if the first gradients are all
    zero (0.2.8).

    >>> import jopt
    >>> tx, params = jopt.prodigy(estim_lr0=0.1), jnp.ones(2)
    >>> updates, state = tx.update(jnp.array([2.0, -0.1]), tx.init(params), params)
    >>> updates.round(3), state["prodigy"].estim_lr
    (Array([-0.316,  0.316], dtype=float32), Array(0.1, dtype=float32))
    """
    b1, b2 = check_betas(betas)
    b3 = b2**0.5 if beta3 is None else beta3
    arguments.decay_rate(beta3=b3)
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)
    arguments.positive(eps=eps, estim_lr0=estim_lr0, estim_lr_coef=estim_lr_coef)
    if growth_rate is not None:
        arguments.at_least(1, growth_rate=growth_rate)

    def scalars(
        t,
        updates,
        params,
        grad_sum,
        params0,
        estim_lr,
        estim_lr_max,
        numerator_weighted,
    ):
        d = estim_lr
        step = d * learning_rate
        if use_bias_correction:
            step = step * adam_correction(b1, b2, t)
        # The weight of this gradient; relative to d_0, because d^2 would underflow.
        weight = d / estim_lr0
        along = total(_along, updates, params, params0)
        numerator = b3 * numerator_weighted + weight * step * along
        add = weight * (d if safeguard_warmup else step)
        size = total(next_size, updates, grad_sum, decay=b3, add=add)
        estimate = estim_lr_coef * ratio(numerator, size)
        highest = jnp.maximum(estim_lr_max, estimate)
        new = highest
        if growth_rate is not None:
            # The first growth may take orders of magnitude, so it has no bound.
            first = d == jnp.asarray(estim_lr0, d.dtype)
            base = jnp.where(first, jnp.maximum(d, estimate), d)
            new = jnp.minimum(highest, growth_rate * base)
        return {
            "step": step,
            "d": d,
            "add": add,
            "estim_lr": new,
            "estim_lr_max": highest,
            "numerator_weighted": numerator,
        }

    def rule(g, m, v, s, params0, *, p, step, d, add, estim_lr):
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * (d * g) * (d * g)
        s = b3 * s + add * g
        u = ratio(m, jnp.sqrt(v) + estim_lr * eps) + weight_decay * p
        return -step * u, m, v, s, params0

    return leafwise(
        rule,
        scalars,
        ProdigyState,
        carry={
            "estim_lr": estim_lr0,
            "estim_lr_max": estim_lr0,
            "numerator_weighted": 0.0,
        },
        real_only=True,
        treatment=Treatment(decay=(weight_decay,)),
        exp_avg=zeros(mu_dtype),
        exp_avg_sq=zeros(nu_dtype, divides=True),
        grad_sum=zeros(),
        params0=copied(params0_dtype),
    )


def _along(g: jax.Array, p: jax.Array, params0: jax.Array) -> jax.Array:
    return g * (params0 - p)
