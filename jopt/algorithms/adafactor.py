"""Adafactor: a factored second moment, and steps relative to the parameters.

    R <- b R + (1 - b) mean_j(g^2),   C <- b C + (1 - b) mean_i(g^2),   b = 1 - t^-0.8
    u <- g / sqrt(V)                  with V = R C^T / mean(R)
    u <- u / max(1, rms(u) / d)
    p <- p - rho max(eps2, rms(p)) u  with rho = min(0.01, 1 / sqrt(t))

Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.
State: ``4 (m + n) / (m n)`` bytes per float32 parameter of an (m, n) matrix, hardly
any; 4 of a vector; 4 more with momentum. Large models are trained with it when Adam's
state does not fit. Leave the learning rate out, or take 1e-3 to 1e-2 with warmup: it is
relative to the size of each leaf.
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
from jopt.transforms.learning_rate import scale, scale_by_learning_rate
from jopt.transforms.momentum import ema
from jopt.transforms.norms import scale_by_param_block_rms
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByRelativeStepState(NamedTuple):
    """State of `scale_by_relative_step`, with the learning rate behind it."""

    count: jax.Array  # int32 scalar, updates so far


@transformation
def scale_by_relative_step(
    learning_rate: ScalarOrSchedule = 1e-2, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply by Adafactor's step size: ``u <- -min(learning_rate, 1 / sqrt(t)) g``.

    Args:
      learning_rate: The largest step size, >= 0.
      flip_sign: False multiplies by plus the step size.

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

    return leafwise(rule, scalars, ScaleByRelativeStepState)


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
    """Adafactor: ``p <- p - learning_rate max(min_scale, rms(p)) u``, u in the module.

    The numbers of torch are those of ``min_dim_size_to_factor=1, relative_step=True,
    factored_axes="last", eps_mode="clamp"``, and ``eps=None`` for its default; its
    weight decay is ``weight_decay_rate=learning_rate * weight_decay``. Keras is the
    same with ``eps_mode="add"``, but scales by the decayed parameter.

    Args:
      learning_rate: The step size, >= 0, relative to the parameter. None is the paper's
        ``min(0.01, 1 / sqrt(t))``; optax then has a step size of 1.
      min_dim_size_to_factor: See `scale_by_factored_rms`.
      decay_rate: See `scale_by_factored_rms`.
      decay_offset: Its ``step_offset``.
      multiply_by_parameter_scale: Whether the step size is relative to ``rms(p)``.
      clipping_threshold: Bounds the root mean square of each leaf's update, > 0; None
        does not.
      momentum: Decay of an average of the updates, in [0, 1); None keeps none. In the
        state a tunable or scheduled one is called ``decay``, as in `ema`.
      dtype_momentum: What the average is stored in; None is float32 or wider.
      weight_decay_rate: >= 0, the share of a parameter that a step takes away. It is
        not multiplied by the learning rate.
      eps: > 0; see `scale_by_factored_rms`.
      factored: Whether to factor at all.
      weight_decay_mask: The leaves to decay; see `add_decayed_weights`.
      relative_step: Whether the step size is ``min(learning_rate, 1 / sqrt(t))``.
      min_scale: The least ``rms(p)``, >= 0, so that zeros can grow.
      factored_axes: Of more than two axes, the two ``"largest"`` or ``"last"``.
      eps_mode: ``"add"`` eps to the squares or ``"clamp"`` to it.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range.

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
