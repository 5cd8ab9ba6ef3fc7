"""Prodigy: Adam that finds its learning rate, sooner than D-Adaptation.

    step <- d lr_t                             d is less than the distance |x_0 - x*|
    m    <- b1 m + (1 - b1) d g
    v    <- b2 v + (1 - b2) d^2 g^2
    a    <- b3 a + (d / d_0) step <g, x_0 - p>
    s    <- b3 s + (d / d_0) step g
    d'   <- max(d, coef a / |s|_1)
    p    <- p - step (m / (sqrt(v) + d' eps) + weight_decay p)

Mishchenko & Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", 2024.

State: 16 bytes per float32 parameter. The learning rate is 1, or a schedule whose
largest value is 1, such as a cosine; ``estim_lr_coef`` of 0.5 to 2 is the number to
tune. It is used much to fine-tune, and for adapters of diffusion models.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.dadapt import adam_correction, check_betas, next_size, quotient
from jopt.algorithms.distance import total
from jopt.core.chain import optimizer
from jopt.core.factory import StorageDtype
from jopt.core.leafwise import copied, leafwise, zeros
from jopt.core.transformation import GradientTransformation
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
    """AdamW without a learning rate, by Prodigy.

    Args:
      learning_rate: A factor for all steps, >= 0; 1, or a schedule below 1.
      betas: Decays of the moments, each in [0, 1).
      beta3: Decay of the sums that ``d`` is found from, in [0, 1); None is
        ``sqrt(betas[1])``.
      eps: Added to the root, times ``d``, > 0.
      estim_lr0: What ``d`` starts at, > 0. In bfloat16 a step has to be some 1e-3 of
        the parameters to change them: start there.
      estim_lr_coef: Multiplies what is found for ``d``, > 0.
      weight_decay: >= 0, multiplied by the step. For L2 instead, chain
        `add_decayed_weights` before.
      safeguard_warmup: Whether the learning rate is left out of ``s``, so that a warmup
        does not make ``d`` too large.
      use_bias_correction: Whether the step is multiplied by Adam's correction.
      growth_rate: The most by which ``d`` is multiplied in a step, after the first that
        it grows, >= 1, such as 1.02; None is no bound.
      mu_dtype: What ``exp_avg`` is stored in; None is float32 or wider.
      nu_dtype: What ``exp_avg_sq`` is stored in.
      params0_dtype: What ``params0`` is stored in; the dtype of the parameters loses
        nothing.

    Returns:
      A transformation; it needs params. Its state has ``estim_lr``, the ``d`` so far.

    Raises:
      ValueError: A number is out of its range.
      TypeError: A leaf is complex.

    Equal to the authors' ``Prodigy``; with the bias correction to optax, which computes
    ``d`` in the parameters' dtype and is NaN for ever if the first gradients are all
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
        weight = d / estim_lr0  # of this gradient; d alone would be too small a number
        along = total(_along, updates, params, params0)
        numerator = b3 * numerator_weighted + weight * step * along
        add = weight * (d if safeguard_warmup else step)
        size = total(next_size, updates, grad_sum, decay=b3, add=add)
        found = estim_lr_coef * quotient(numerator, size)
        highest = jnp.maximum(estim_lr_max, found)
        new = highest
        if growth_rate is not None:
            first = d == jnp.asarray(estim_lr0, d.dtype)
            base = jnp.where(first, jnp.maximum(d, found), d)
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
        u = m / (jnp.sqrt(v) + estim_lr * eps) + weight_decay * p
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
        exp_avg=zeros(mu_dtype),
        exp_avg_sq=zeros(nu_dtype),
        grad_sum=zeros(),
        params0=copied(params0_dtype),
    )


def _along(g: jax.Array, p: jax.Array, params0: jax.Array) -> jax.Array:
    return g * (params0 - p)
