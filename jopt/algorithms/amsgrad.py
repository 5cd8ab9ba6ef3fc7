"""AMSGrad: Adam whose divisor never shrinks.

    m, v as in Adam
    v_max <- max(v_max, v^)
    u     <- m^ / (sqrt(v_max) + eps)

Reddi, Kale & Kumar, "On the convergence of Adam and beyond", 2018. State: 12 bytes per
float32 parameter. It fixes a case in which Adam does not converge; in practice the two
rarely differ much.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import EpsMode, check_adam, eps_terms
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real
    nu_max: Any  # largest second moment so far, like params, real


@transformation
def scale_by_amsgrad(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    nu_dtype: StorageDtype | None = None,
    maximum: Literal["corrected", "raw"] = "corrected",
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Rescale by the largest second moment so far: ``u <- m^ / (sqrt(v_max) + eps)``.

    Args:
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      bias_correction_mu: Whether to correct the bias of the first moment.
      bias_correction_nu: Whether to correct the bias of the second moment.
      nu_dtype: Storage dtype of ``nu`` and ``nu_max``; None means float32 or wider.
      maximum: ``"corrected"`` takes the maximum of bias-corrected moments (optax);
        ``"raw"`` takes it before the correction (torch, Keras).
      eps_mode: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Reddi, Kale & Kumar, "On the convergence of Adam and beyond", 2018.

    >>> import jopt
    >>> tx = jopt.scale_by_amsgrad()
    >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(4)
    Array([1.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, eps_mode)
    arguments.one_of(("corrected", "raw"), maximum=maximum)

    def scalars(t):
        one = jnp.ones_like(t)
        nu_scale = 1 / one_minus_power(b2, t) if bias_correction_nu else one
        return {
            "mu_scale": 1 / one_minus_power(b1, t) if bias_correction_mu else one,
            "nu_scale": nu_scale,
            **eps_terms(eps, eps_root, eps_mode, nu_scale),
        }

    def rule(g, mu, nu, nu_max, *, mu_scale, nu_scale, outside, inside):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        # A raw maximum is stored uncorrected, so every step corrects it anew.
        if maximum == "raw":
            nu_max = jnp.maximum(nu_max, nu)
            v = nu_scale * nu_max
        else:
            v = nu_max = jnp.maximum(nu_max, nu_scale * nu)
        root = jnp.sqrt(v + inside) + outside
        return ratio(mu_scale * mu, root, eps, eps_root), mu, nu, nu_max

    return leafwise(
        rule,
        scalars,
        ScaleByAmsgradState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
        nu_max=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    nu_dtype: StorageDtype | None = None,
    maximum: Literal["corrected", "raw"] = "corrected",
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """AMSGrad: Adam whose divisor never shrinks.

    torch's numbers need ``maximum="raw"``, Keras's also ``eps_mode="before"``.

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_amsgrad`.
      bias_correction_mu, bias_correction_nu: See `scale_by_amsgrad`.
      nu_dtype, maximum, eps_mode: See `scale_by_amsgrad`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Reddi, Kale & Kumar, "On the convergence of Adam and beyond", 2018.

    >>> import jopt
    >>> jopt.amsgrad(1e-3, maximum="raw")
    amsgrad(learning_rate=0.001, maximum='raw')
    """
    return chain(
        scale_by_amsgrad(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            bias_correction_mu,
            bias_correction_nu,
            nu_dtype=nu_dtype,
            maximum=maximum,
            eps_mode=eps_mode,
        ),
        scale_by_learning_rate(learning_rate),
    )
