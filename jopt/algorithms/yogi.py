"""Yogi: Adam whose second moment moves by at most a fraction of the squared gradient.

    m <- b1 m + (1 - b1) g
    v <- v - (1 - b2) sign(v - g^2) g^2
    u <- m^ / (sqrt(v^) + eps)

Zaheer et al., "Adaptive methods for nonconvex optimization", 2018. State: 8 bytes per
float32 parameter. Where squared gradients become small, v follows slowly, so the step
sizes do not jump. The paper uses a learning rate of 0.01 and the large eps of 1e-3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import EpsMode, check_adam, eps_terms
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import full, leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByYogiState(NamedTuple):
    """State of `scale_by_yogi`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_yogi(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-3,
    eps_root: ScalarOrSchedule = 0.0,
    initial_accumulator_value: float = 1e-6,
    *,
    initial_mu: float = 0.0,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Rescale by Adam's first and Yogi's second moment.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: The second moment moves by ``1 - b2`` of the squared gradient; in [0, 1).
      eps: Added to the root, >= 0.
      eps_root: Added under the root, >= 0.
      initial_accumulator_value: Initial value of the second moment, >= 0.
      initial_mu: Initial value of the first moment; zero, as in the paper. optax and
        pytorch_optimizer start it at 1e-6 like the second, which moves parameters that
        have no gradient.
      mu_dtype, nu_dtype: See `scale_by_adam`.
      eps_mode: ``"after"`` adds eps after the bias correction (optax), ``"before"``
        adds it before (TensorFlow Addons); see `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Zaheer et al., "Adaptive methods for nonconvex optimization", 2018, algorithm 2.

    >>> import jopt
    >>> tx = jopt.scale_by_yogi(eps=1e-8)
    >>> tx.update(jnp.array([2.0, 0.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([1., 0.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, eps_mode)
    arguments.nonnegative(initial_accumulator_value=initial_accumulator_value)
    arguments.finite(initial_mu=initial_mu)

    def scalars(t):
        nu_scale = 1 / one_minus_power(b2, t)
        return {
            "mu_scale": 1 / one_minus_power(b1, t),
            "nu_scale": nu_scale,
            **eps_terms(eps, eps_root, eps_mode, nu_scale),
        }

    def rule(g, mu, nu, *, mu_scale, nu_scale, outside, inside):
        mu = b1 * mu + (1 - b1) * g
        square = abs_sq(g)
        step = (1 - b2) * square
        # Not sign(nu - square), which is NaN where both have overflowed.
        nu = jnp.where(nu > square, nu - step, jnp.where(nu < square, nu + step, nu))
        root = jnp.sqrt(nu_scale * nu + inside) + outside
        return ratio(mu_scale * mu, root, eps, eps_root), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByYogiState,
        mu=full(initial_mu, mu_dtype),
        nu=full(initial_accumulator_value, nu_dtype, real=True, divides=True),
    )


@transformation
def yogi(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-3,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    initial_accumulator_value: float = 1e-6,
    initial_mu: float = 0.0,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Yogi: ``p <- p - learning_rate m^ / (sqrt(v^) + eps)`` with additive steps of v.

    The second moment ``v`` moves by ``1 - b2`` of the squared gradient, up or down.
    Where gradients become small it follows slowly, so the step sizes do not jump as in
    Adam.

    Args:
      learning_rate: Step size, >= 0; 0.01 in the paper.
      b1, b2, eps, initial_accumulator_value: See `scale_by_yogi`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate;
        None means no decay.
      mask: See `add_decayed_weights`.
      initial_mu: Initial value of the first moment; 1e-6 gives optax's numbers.
      mu_dtype, nu_dtype, eps_mode: See `scale_by_yogi`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or ``eps`` is zero.

    Zaheer et al., "Adaptive methods for nonconvex optimization", 2018.

    >>> import jopt
    >>> jopt.yogi(0.01)
    yogi(learning_rate=0.01)
    """
    return chain(
        scale_by_yogi(
            b1,
            b2,
            eps,
            initial_accumulator_value=initial_accumulator_value,
            initial_mu=initial_mu,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
            eps_mode=eps_mode,
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
