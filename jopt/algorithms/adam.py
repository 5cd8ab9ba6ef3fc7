"""Adam, and Adam with decoupled weight decay.

    m <- b1 m + (1 - b1) g            first moment
    v <- b2 v + (1 - b2) g^2          second moment
    u <- m^ / (sqrt(v^) + eps)        with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t)

`adam`   Kingma & Ba, "Adam: a method for stochastic optimization", 2015
`adamw`  Loshchilov & Hutter, "Decoupled weight decay regularization", 2019

State: 8 bytes per float32 parameter; 6 with ``mu_dtype="bfloat16"``, 2 with
``mu_dtype="int8", nu_dtype="int8"``. AdamW is the default optimizer of deep learning.
Typical settings: learning rate 1e-4 to 1e-3 with warmup and decay, b2 = 0.95 for
language models, weight decay 0.01 to 0.1 on matrices only.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


EpsMode = Literal["after", "before"]


class ScaleByAdamState(NamedTuple):
    """State of `scale_by_adam`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_adam(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    nesterov: bool = False,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Rescale updates by Adam's moments: ``u <- m^ / (sqrt(v^ + eps_root) + eps)``.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      eps: Added to the square root, >= 0; it keeps the updates from tiny gradients
        small.
      eps_root: Added under the square root, >= 0. Use a positive value to differentiate
        through a zero gradient.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider. Here and wherever
        there is such an argument it may be the name of a format, which rounds at
        random: ``"bfloat16_sr"``, ``"float8_e4m3"``, ``"int8"`` or ``"int4"``.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider. In bfloat16, a
        decay of 0.999 is lost to rounding, in ``"bfloat16_sr"`` it is not; float16
        cannot hold squares of gradients.
      nesterov: Whether to use a Nesterov look-ahead first moment (Dozat, "Incorporating
        Nesterov momentum into Adam", 2016, without its momentum schedule).
      eps_mode: ``"after"`` adds ``eps`` after the bias correction (optax, torch).
        ``"before"`` adds it to the uncorrected root, where it acts as
        ``eps / sqrt(1 - b2^t)`` (Keras, TensorFlow, the paper's "epsilon hat").

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Kingma & Ba, "Adam: a method for stochastic optimization", 2015.

    >>> import jopt
    >>> tx = jopt.scale_by_adam()
    >>> tx.update(jnp.array([1e-3, -5.0]), tx.init(jnp.zeros(2)))[0].round(4)
    Array([ 1., -1.], dtype=float32)
    """
    check_adam(b1, b2, eps, eps_root, eps_mode)

    def scalars(t):
        nu_scale = 1 / one_minus_power(b2, t)
        return {
            "nu_scale": nu_scale,
            **momentum_terms(b1, t, nesterov),
            **eps_terms(eps, eps_root, eps_mode, nu_scale),
        }

    def rule(g, mu, nu, *, mu_scale, g_scale, nu_scale, outside, inside):
        # A constant b2 is a Python double: 1 - b2 in float32 would lose digits.
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        mu_hat = mu_scale * mu + g_scale * g if nesterov else mu_scale * mu
        root = jnp.sqrt(nu_scale * nu + inside) + outside
        return ratio(mu_hat, root, eps, eps_root), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAdamState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


def check_adam(b1: Any, b2: Any, eps: Any, eps_root: Any, eps_mode: str) -> None:
    """Check the arguments that Adam and its relatives share."""
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.nonnegative(eps=eps, eps_root=eps_root)
    arguments.one_of(("after", "before"), eps_mode=eps_mode)
    arguments.some_positive(eps=eps, eps_root=eps_root)


def momentum_terms(b1: Any, t: jax.Array, nesterov: bool) -> dict[str, jax.Array]:
    """Return the weights of ``mu`` and ``g`` in the bias-corrected first moment."""
    correction = one_minus_power(b1, t)
    if not nesterov:
        # The rule declares g_scale, so it gets a value that it does not read.
        return {"mu_scale": 1 / correction, "g_scale": jnp.zeros_like(t)}
    # The look-ahead uses mu as the next step would, so its correction is for t + 1.
    mu_scale = b1 / one_minus_power(b1, t + 1)
    return {"mu_scale": mu_scale, "g_scale": (1 - b1) / correction}


def eps_terms(
    eps: Any, eps_root: Any, eps_mode: str, nu_scale: jax.Array
) -> dict[str, jax.Array]:
    """Return what to add under and to the root of the corrected second moment."""
    if eps_mode == "before":
        # sqrt(v) + eps, times sqrt(nu_scale), is sqrt(v^) + eps sqrt(nu_scale).
        eps, eps_root = eps * jnp.sqrt(nu_scale), eps_root * nu_scale
    dtype = nu_scale.dtype
    return {"outside": jnp.asarray(eps, dtype), "inside": jnp.asarray(eps_root, dtype)}


@transformation
def adam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    nesterov: bool = False,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Adam: ``p <- p - learning_rate m^ / (sqrt(v^) + eps)``.

    Keras's defaults are ``eps=1e-7, eps_mode="before"``.

    Args:
      learning_rate: The step size, >= 0; 1e-3 is typical.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      nu_dtype, nesterov, eps_mode: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Kingma & Ba, "Adam: a method for stochastic optimization", 2015.

    >>> import jopt
    >>> tx = jopt.adam(1e-3)
    >>> list(tx.init(jnp.ones(3)))
    ['scale_by_adam', 'scale_by_learning_rate']
    """
    return chain(
        scale_by_adam(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            nu_dtype=nu_dtype,
            nesterov=nesterov,
            eps_mode=eps_mode,
        ),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nu_dtype: StorageDtype | None = None,
    nesterov: bool = False,
    eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """AdamW: Adam with decoupled weight decay.

        p <- p - learning_rate (m^ / (sqrt(v^) + eps) + weight_decay p)

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate. torch's
        default is 0.01, Keras's 0.004.
      mask: See `add_decayed_weights`.
      nu_dtype, nesterov, eps_mode: See `scale_by_adam`.

    Returns:
      A transformation; it needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jopt
    >>> jopt.adamw(1e-3, weight_decay=0.1, mask="kernel")
    adamw(learning_rate=0.001, weight_decay=0.1, mask='kernel')
    """
    return chain(
        scale_by_adam(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            nu_dtype=nu_dtype,
            nesterov=nesterov,
            eps_mode=eps_mode,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
