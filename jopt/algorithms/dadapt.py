"""D-Adaptation: Adam that derives its learning rate from a bound on the distance.

    step <- d lr_t                             d: lower bound on |x_0 - x*|
    a    <- sqrt(b2) a + (1 - sqrt(b2)) step <g, s / (sqrt(v) + eps)>
    m    <- b1 m + (1 - b1) step g
    v    <- b2 v + (1 - b2) g^2
    s    <- sqrt(b2) s + (1 - sqrt(b2)) step g
    p    <- p - m / (sqrt(v) + eps) - step weight_decay p
    d    <- max(d, a / ((1 - sqrt(b2)) |s|_1))                     from the next step on

Defazio & Mishchenko, "Learning-rate-free learning by D-Adaptation", 2023.

State: 12 bytes per float32 parameter. Use a learning rate of 1, or a schedule that
peaks at 1. Prodigy, by the same authors, finds its step size sooner.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.distance import total
from jopt.core.chain import optimizer
from jopt.core.factory import StorageDtype
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.tree import one_minus_power, ratio
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


class DAdaptAdamWState(NamedTuple):
    """State of `dadapt_adamw`."""

    count: jax.Array  # int32 scalar, updates so far
    exp_avg: Any  # m, like params
    exp_avg_sq: Any  # v, like params
    grad_sum: Any  # s, like params
    estim_lr: jax.Array  # float32 scalar, d
    numerator_weighted: jax.Array  # float32 scalar, a


@optimizer
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: float = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    use_bias_correction: bool = False,
    growth_rate: ScalarOrSchedule | None = None,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """AdamW without a learning rate, by D-Adaptation.

    Args:
      learning_rate: Factor for all steps, >= 0; 1, or a schedule of at most 1.
      betas: Decays of the first and second moment, each in [0, 1).
      eps: Added to the square root, > 0.
      estim_lr0: Initial ``d``, > 0. For bfloat16 parameters, start at about 1e-3 of
        their size: smaller steps are lost to rounding.
      weight_decay: Decay coefficient, >= 0, multiplied by the step size. For an L2
        penalty, chain `add_decayed_weights` before this instead.
      use_bias_correction: Whether to multiply the step size by Adam's bias correction.
      growth_rate: The largest factor by which ``d`` may grow in a step, >= 1, such as
        1.02; None means no bound.
      mu_dtype: Storage dtype of ``exp_avg``; None means float32 or wider.
      nu_dtype: Storage dtype of ``exp_avg_sq``; None means float32 or wider.

    Returns:
      A transformation; it needs params. ``estim_lr`` in its state is the current ``d``.

    Raises:
      ValueError: A number is out of range.
      TypeError: ``betas`` is not a pair, or a leaf is complex.

    Defazio & Mishchenko, "Learning-rate-free learning by D-Adaptation", 2023. Matches
    the authors' ``DAdaptAdam(decouple=True)``. With the bias correction it matches
    optax, which stays NaN if the first gradients are all zero (0.2.8).

    >>> import jopt
    >>> tx, params = jopt.dadapt_adamw(estim_lr0=0.1), jnp.ones(2)
    >>> updates, state = tx.update(jnp.array([2.0, -0.1]), tx.init(params), params)
    >>> updates.round(3), state["dadapt_adamw"].estim_lr
    (Array([-0.316,  0.316], dtype=float32), Array(0.1, dtype=float32))
    """
    b1, b2 = check_betas(betas)
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)
    arguments.positive(eps=eps, estim_lr0=estim_lr0)
    decay = b2**0.5
    if growth_rate is not None:
        arguments.at_least(1, growth_rate=growth_rate)

    def scalars(t, updates, exp_avg_sq, grad_sum, estim_lr, numerator_weighted):
        step = estim_lr * learning_rate
        if use_bias_correction:
            step = step * adam_correction(b1, b2, t)
        along = total(_along, updates, grad_sum, exp_avg_sq, eps=eps)
        numerator = decay * numerator_weighted + (1 - decay) * step * along
        # The norm of the s that the rule will store once these scalars are known.
        size = total(next_size, updates, grad_sum, decay=decay, add=(1 - decay) * step)
        estimate = ratio(numerator, (1 - decay) * size)
        if growth_rate is not None:
            estimate = jnp.minimum(estimate, growth_rate * estim_lr)
        return {
            "step": step,
            "estim_lr": jnp.maximum(estim_lr, estimate),
            "numerator_weighted": numerator,
        }

    def rule(g, m, v, s, *, p, step):
        m = b1 * m + (1 - b1) * step * g
        v = b2 * v + (1 - b2) * g * g
        s = decay * s + (1 - decay) * step * g
        return -ratio(m, jnp.sqrt(v) + eps, eps) - step * weight_decay * p, m, v, s

    return leafwise(
        rule,
        scalars,
        DAdaptAdamWState,
        carry={"estim_lr": estim_lr0, "numerator_weighted": 0.0},
        real_only=True,
        treatment=Treatment(decay=(weight_decay,)),
        exp_avg=zeros(mu_dtype),
        exp_avg_sq=zeros(nu_dtype, divides=True),
        grad_sum=zeros(),
    )


def _along(g: jax.Array, s: jax.Array, v: jax.Array, *, eps: jax.Array) -> jax.Array:
    return g * ratio(s, jnp.sqrt(v) + eps)


def next_size(
    g: jax.Array, s: jax.Array, *, decay: jax.Array, add: jax.Array
) -> jax.Array:
    """Return the elements of ``|s|`` after the next gradient is added to ``s``."""
    return jnp.abs(decay * s + add * g)


def check_betas(betas: Any) -> tuple[float, float]:
    """Return the decays of the two moments, checked."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(
            f"betas must be a pair such as (0.9, 0.999), got {text_of(betas)}"
        )
    b1, b2 = betas
    arguments.decay_rate(**{"betas[0]": b1, "betas[1]": b2})
    return b1, b2


def adam_correction(b1: float, b2: float, t: jax.Array) -> jax.Array:
    """Return the factor that Adam's bias corrections put on an update."""
    return jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
