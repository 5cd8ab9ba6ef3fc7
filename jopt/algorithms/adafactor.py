"""Adafactor: a factored second moment, and steps relative to the parameters.

    R <- b R + (1 - b) mean_j(g^2),   C <- b C + (1 - b) mean_i(g^2),   b = 1 - t^-0.8
    u <- g / sqrt(V)                  with V = R C^T / mean(R)
    u <- u / max(1, rms(u) / d)
    p <- p - rho max(eps2, rms(p)) u  with rho = min(0.01, 1 / sqrt(t))

Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.
State: ``4 (m + n) / (m n)`` bytes per float32 parameter of an (m, n) matrix, which is
next to nothing; 4 bytes for a vector; 4 more with momentum. Use it for large models
when Adam's state does not fit. Omit the learning rate, or use 1e-3 to 1e-2 with warmup:
it is relative to the RMS of each leaf.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.factored_rms import (
    FactoredAxes,
    FactoredEpsMode,
    scale_by_factored_rms,
)
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.transforms.learning_rate import scale, scale_by_learning_rate
from jopt.transforms.momentum import ema
from jopt.transforms.norms import scale_by_param_block_rms
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByRelativeStepState(NamedTuple):
    """State of `scale_by_relative_step`; ``learning_rate`` follows ``count``."""

    count: jax.Array  # int32 scalar, updates so far


@transformation
def scale_by_relative_step(
    learning_rate: ScalarOrSchedule = 1e-2, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply by Adafactor's step size.

        u <- -min(learning_rate, 1 / sqrt(t)) g

    Args:
      learning_rate: The largest step size, >= 0.
      flip_sign: Whether to multiply by minus the step size; False multiplies by plus.

    Returns:
      A transformation with the state ``(count, learning_rate)``.

    Raises:
      ValueError: The learning rate is negative or not finite.

    Shazeer & Stern, "Adafactor", 2018, section 7.

    >>> import jopt
    >>> tx = jopt.scale_by_relative_step()
    >>> tx.update(jnp.ones(1), tx.init(jnp.ones(1)))[0]
    Array([-0.01], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate)
    sign = -1.0 if flip_sign else 1.0

    def scalars(t):
        return {"rate": sign * jnp.minimum(learning_rate, t**-0.5)}

    def rule(g, *, rate):
        return rate * g

    # It is less than the learning rate after 1 / learning_rate^2 steps.
    treatment = Treatment(factor=(sign, learning_rate))
    return leafwise(rule, scalars, ScaleByRelativeStepState, treatment=treatment)


@transformation
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: ScalarOrSchedule = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: ScalarOrSchedule | None = 1.0,
    momentum: ScalarOrSchedule | None = None,
    dtype_momentum: StorageDtype | None = None,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule | None = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
    *,
    relative_step: bool = False,
    min_scale: ScalarOrSchedule = 1e-3,
    factored_axes: FactoredAxes = "largest",
    eps_mode: FactoredEpsMode = "add",
) -> GradientTransformation:
    """Adafactor: ``p <- p - learning_rate max(min_scale, rms(p)) u``.

    ``u`` is the gradient over its factored RMS, clipped. torch's numbers need
    ``min_dim_size_to_factor=1, relative_step=True, factored_axes="last",
    eps_mode="clamp"`` and, for its default eps, ``eps=None``; its weight decay is
    ``weight_decay_rate=learning_rate * weight_decay``. Keras is the same with
    ``eps_mode="add"``, except that it scales by the decayed parameter.

    Args:
      learning_rate: The step size, >= 0, relative to the parameter. None means the
        paper's ``min(0.01, 1 / sqrt(t))``; optax then uses 1.
      min_dim_size_to_factor, decay_rate: See `scale_by_factored_rms`.
      decay_offset: The ``step_offset`` of `scale_by_factored_rms`.
      multiply_by_parameter_scale: Whether to multiply the step size by ``rms(p)``.
      clipping_threshold: Bound on the RMS of each leaf's update, > 0; None means no
        bound.
      momentum: Decay of a moving average of the updates, in [0, 1); None keeps none. In
        the state, a tunable or scheduled momentum is named ``decay``, as in `ema`.
      dtype_momentum: Storage dtype of the average; None means float32 or wider.
      weight_decay_rate: Fraction by which a step shrinks the parameters, >= 0. It is
        not multiplied by the learning rate.
      eps: The ``epsilon`` of `scale_by_factored_rms`, > 0.
      factored: See `scale_by_factored_rms`.
      weight_decay_mask: The leaves to decay, in any form of `jopt.Mask`.
      relative_step: Whether the step size is ``min(learning_rate, 1 / sqrt(t))``.
      min_scale: Lower bound on ``rms(p)``, >= 0, so that zeros can grow.
      factored_axes, eps_mode: See `scale_by_factored_rms`.

    Returns:
      A transformation; it needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or ``eps`` is None without
        ``eps_mode="clamp"``.

    Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
    2018.

    >>> import jopt
    >>> state = jopt.adafactor(1e-3).init(jnp.ones((256, 512)))
    >>> sum(x.size for x in jax.tree.leaves(state))  # 768 means, counts and a rate
    771
    """
    members = [
        scale_by_factored_rms(
            factored,
            decay_rate,
            decay_offset,
            min_dim_size_to_factor,
            eps,
            clipping_threshold=clipping_threshold,
            factored_axes=factored_axes,
            eps_mode=eps_mode,
        )
    ]
    # Steps stay positive until the last member, so that weight decay, which the
    # learning rate does not multiply, is simply added to them.
    if learning_rate is None:
        members.append(scale_by_relative_step(flip_sign=False))
    elif relative_step:
        members.append(scale_by_relative_step(learning_rate, flip_sign=False))
    else:
        members.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        members.append(scale_by_param_block_rms(min_scale))
    if momentum is not None:
        members.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        members.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*members, scale(-1.0))
