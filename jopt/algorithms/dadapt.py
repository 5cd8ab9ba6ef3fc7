"""D-Adaptation: Adam that finds its learning rate from a bound on the distance.

    step <- d lr_t                             d is less than the distance |x_0 - x*|
    a    <- sqrt(b2) a + (1 - sqrt(b2)) step <g, s / (sqrt(v) + eps)>
    m    <- b1 m + (1 - b1) step g
    v    <- b2 v + (1 - b2) g^2
    s    <- sqrt(b2) s + (1 - sqrt(b2)) step g
    p    <- p - m / (sqrt(v) + eps) - step weight_decay p
    d    <- max(d, a / ((1 - sqrt(b2)) |s|_1))                     from the next step on

Defazio & Mishchenko, "Learning-rate-free learning by D-Adaptation", 2023.

State: 12 bytes per float32 parameter. The learning rate is 1, or a schedule whose
largest value is 1. Prodigy, by the same authors, finds its step sooner.
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
from jopt.tree import one_minus_power
from jopt.values import arguments
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
      learning_rate: A factor for all steps, >= 0; 1, or a schedule below 1.
      betas: Decays of the moments, each in [0, 1).
      eps: Added to the root, > 0.
      estim_lr0: What ``d`` starts at, > 0. In bfloat16 a step has to be some 1e-3 of
        the parameters to change them: start there.
      weight_decay: >= 0, multiplied by the step. For L2 instead, chain
        `add_decayed_weights` before.
      use_bias_correction: Whether the step is multiplied by Adam's correction.
      growth_rate: The most by which ``d`` is multiplied in a step, >= 1, such as 1.02;
        None is no bound.
      mu_dtype: What ``exp_avg`` is stored in; None is float32 or wider.
      nu_dtype: What ``exp_avg_sq`` is stored in.

    Returns:
      A transformation; it needs params. Its state has ``estim_lr``, the ``d`` so far.

    Raises:
      ValueError: A number is out of its range.
      TypeError: A leaf is complex.

    Equal to the authors' ``DAdaptAdam(decouple=True)``; with the bias correction to
    optax, which is NaN for ever if the first gradients are all zero (0.2.8).

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
        size = total(next_size, updates, grad_sum, decay=decay, add=(1 - decay) * step)
        found = quotient(numerator, (1 - decay) * size)
        if growth_rate is not None:
            found = jnp.minimum(found, growth_rate * estim_lr)
        return {
            "step": step,
            "estim_lr": jnp.maximum(estim_lr, found),
            "numerator_weighted": numerator,
        }

    def rule(g, m, v, s, *, p, step):
        m = b1 * m + (1 - b1) * step * g
        v = b2 * v + (1 - b2) * g * g
        s = decay * s + (1 - decay) * step * g
        return -(m / (jnp.sqrt(v) + eps)) - step * weight_decay * p, m, v, s

    return leafwise(
        rule,
        scalars,
        DAdaptAdamWState,
        carry={"estim_lr": estim_lr0, "numerator_weighted": 0.0},
        real_only=True,
        exp_avg=zeros(mu_dtype),
        exp_avg_sq=zeros(nu_dtype),
        grad_sum=zeros(),
    )


def _along(g: jax.Array, s: jax.Array, v: jax.Array, *, eps: jax.Array) -> jax.Array:
    return g * (s / (jnp.sqrt(v) + eps))


def next_size(
    g: jax.Array, s: jax.Array, *, decay: jax.Array, add: jax.Array
) -> jax.Array:
    """How large a sum of gradients is with the next of them."""
    return jnp.abs(decay * s + add * g)


def check_betas(betas: Any) -> tuple[float, float]:
    """The decays of the two moments."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas must be a pair such as (0.9, 0.999), got {betas!r}")
    b1, b2 = betas
    arguments.decay_rate(**{"betas[0]": b1, "betas[1]": b2})
    return b1, b2


def adam_correction(b1: float, b2: float, t: jax.Array) -> jax.Array:
    """What Adam's bias corrections multiply an update by."""
    return jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)


def quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, or zero before any gradient was other than zero."""
    given = denominator > 0
    return jnp.where(given, numerator, 0) / jnp.where(given, denominator, 1)
