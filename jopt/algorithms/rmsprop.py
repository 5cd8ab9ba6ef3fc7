"""RMSprop: divide by a running root mean square.

    v <- decay v + (1 - decay) g^2
    u <- g / sqrt(v + eps)                    centered: v - m^2 with m the running mean

Tieleman & Hinton, "Lecture 6.5: RMSProp", 2012; Graves, "Generating sequences with
recurrent neural networks", 2013 (centered).

State: 4 bytes per float32 parameter, and 4 more each for centering and momentum. Still
common in reinforcement learning: learning rate 1e-3 or less, decay 0.9 to 0.99.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.sgd import sgd
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import full, leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByRmsState(NamedTuple):
    """State of `scale_by_rms`."""

    count: jax.Array  # int32 scalar, updates so far
    nu: Any  # mean square, like params, real


@transformation
def scale_by_rms(
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide by the running root mean square: ``u <- g / sqrt(v + eps)``.

    Args:
      decay: Decay of the mean square, in [0, 1).
      eps: Keeps the denominator from zero, > 0.
      initial_scale: Initial value of ``nu``, >= 0.
      eps_in_sqrt: If True, add eps under the root (optax, Keras), else to the root
        (torch).
      bias_correction: Whether to correct ``nu`` for its start at zero.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Tieleman & Hinton, "Lecture 6.5: RMSProp", 2012.

    >>> import jopt
    >>> tx = jopt.scale_by_rms(decay=0.75)
    >>> tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)))[0]
    Array([2.], dtype=float32)
    """
    arguments.decay_rate(decay=decay)
    arguments.positive(eps=eps)
    arguments.nonnegative(initial_scale=initial_scale)
    scalars = _scalars(decay, bias_correction)

    def rule(g, nu, *, scale):
        nu = decay * nu + (1 - decay) * abs_sq(g)
        return _divide(g, scale * nu, eps, eps_in_sqrt), nu

    return leafwise(
        rule,
        scalars,
        ScaleByRmsState,
        nu=full(initial_scale, nu_dtype, real=True, divides=True),
    )


class ScaleByStddevState(NamedTuple):
    """State of `scale_by_stddev`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # mean, like params
    nu: Any  # mean square, like params, real


@transformation
def scale_by_stddev(
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide by the running standard deviation: ``u <- g / sqrt(v - m^2 + eps)``.

    Args:
      decay: Decay of the mean and the mean square, in [0, 1).
      eps, initial_scale, eps_in_sqrt: See `scale_by_rms`.
      bias_correction: Whether to correct ``mu`` and ``nu`` for their start at zero.
      nu_dtype: See `scale_by_rms`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Graves, "Generating sequences with recurrent neural networks", 2013.

    >>> import jopt
    >>> tx = jopt.scale_by_stddev(decay=0.5)
    >>> tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)))[0]
    Array([2.], dtype=float32)
    """
    arguments.decay_rate(decay=decay)
    arguments.positive(eps=eps)
    arguments.nonnegative(initial_scale=initial_scale)
    scalars = _scalars(decay, bias_correction)

    def rule(g, mu, nu, *, scale):
        mu = decay * mu + (1 - decay) * g
        nu = decay * nu + (1 - decay) * abs_sq(g)
        v, m = scale * nu, scale * mu
        # Rounding may make the difference negative, and inf - inf would be NaN.
        variance = jnp.where(v < jnp.inf, jnp.maximum(v - abs_sq(m), 0), v)
        return _divide(g, variance, eps, eps_in_sqrt), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByStddevState,
        mu=zeros(),
        nu=full(initial_scale, nu_dtype, real=True, divides=True),
    )


def _scalars(decay: Any, corrected: bool) -> Any:
    def scalars(t):
        filled = one_minus_power(decay, t) if corrected else jnp.ones_like(t)
        return {"scale": 1 / filled}

    return scalars


def _divide(g: jax.Array, v: jax.Array, eps: Any, eps_in_sqrt: bool) -> jax.Array:
    return ratio(g, jnp.sqrt(v + eps) if eps_in_sqrt else jnp.sqrt(v) + eps, eps)


@transformation
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    lr_in_momentum: bool = True,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """RMSprop: ``p <- p - learning_rate g / sqrt(v + eps)``.

    It divides each gradient by the root of a running mean ``v`` of its squares: Adam
    without momentum. Still common in reinforcement learning, with learning rates of
    1e-3 or less and a decay of 0.9 to 0.99.

    Args:
      learning_rate: Step size, >= 0.
      decay: Decay of the mean square, in [0, 1); torch's default is 0.99.
      eps: Keeps the denominator from zero, > 0; Keras's default is 1e-7.
      initial_scale, eps_in_sqrt: See `scale_by_rms`.
      centered: Whether to divide by the standard deviation instead, as
        `scale_by_stddev` does.
      momentum: Decay of the momentum of the rescaled gradients, in [0, 1); None keeps
        no momentum. A tunable or scheduled one is called ``decay`` in the state, as in
        `trace`.
      nesterov: See `trace`.
      bias_correction: See `scale_by_rms`.
      lr_in_momentum: If True, the learning rate enters the momentum (optax, Keras),
        else it multiplies the momentum (torch). They differ while the learning rate
        changes.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate;
        None means no decay. With ``momentum``, it needs ``lr_in_momentum=False``.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_rms`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, ``nesterov`` is set without ``momentum``, or
        ``weight_decay`` with a momentum that the learning rate enters.

    Tieleman & Hinton, "Lecture 6.5: RMSProp", 2012.

    >>> import jopt
    >>> jopt.rmsprop(1e-3, centered=True, momentum=0.9)
    rmsprop(learning_rate=0.001, centered=True, momentum=0.9)
    """
    divide = scale_by_stddev if centered else scale_by_rms
    scaled = divide(
        decay, eps, initial_scale, eps_in_sqrt, bias_correction, nu_dtype=nu_dtype
    )
    descent = sgd(
        learning_rate,
        momentum,
        nesterov,
        lr_in_momentum=lr_in_momentum,
        weight_decay=weight_decay,
        mask=mask,
    )
    return chain(scaled, descent)
