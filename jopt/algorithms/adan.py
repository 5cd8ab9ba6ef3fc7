"""Adan: Nesterov momentum from the differences of gradients.

    d <- g - (g of the previous step)               0 in the first step
    m <- b1 m + (1 - b1) g
    v <- b2 v + (1 - b2) d
    n <- b3 n + (1 - b3) (g + b2 d)^2
    u <- (m^ + b2 v^) / (sqrt(n^) + eps)
    p <- (p - learning_rate u) / (1 + learning_rate weight_decay)

Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep
models", 2022. State: 16 bytes per float32 parameter, 14 with ``g_dtype="bfloat16"``,
which is lossless for bfloat16 gradients. Use learning rates 5 to 10 times AdamW's and a
weight decay of 0.02.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.proximal import proximal_decay
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAdanState(NamedTuple):
    """State of `scale_by_adan`."""

    count: jax.Array  # int32 scalar, updates so far
    m: Any  # mean of the gradients, like params
    v: Any  # mean of their differences, like params
    n: Any  # mean square, like params, real
    g: Any  # last gradient, like params


@transformation
def scale_by_adan(
    b1: ScalarOrSchedule = 0.98,
    b2: ScalarOrSchedule = 0.92,
    b3: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    *,
    difference_weight: ScalarOrSchedule | None = None,
    m_dtype: StorageDtype | None = None,
    v_dtype: StorageDtype | None = None,
    n_dtype: StorageDtype | None = None,
    g_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Rescale by Adan's moments: ``u <- (m^ + b2 v^) / (sqrt(n^ + eps_root) + eps)``.

    The decays follow the authors' code; the paper's are one minus these.

    Args:
      b1: Decay of the mean gradient, in [0, 1).
      b2: Decay of the mean difference, in [0, 1).
      b3: Decay of the mean square, in [0, 1).
      eps: Added to the square root, >= 0.
      eps_root: Added under the square root, >= 0.
      difference_weight: Weight of the differences in the update and in ``n``; None
        means ``b2``. optax's is ``1 - b2``, which leaves almost no Nesterov momentum.
      m_dtype: Storage dtype of ``m``; None means float32 or wider.
      v_dtype: Storage dtype of ``v``; None means float32 or wider.
      n_dtype: Storage dtype of ``n``; None means float32 or wider.
      g_dtype: Storage dtype of the last gradient; None means float32 or wider.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Xie et al., "Adan", 2022, algorithm 1.

    >>> import jopt
    >>> tx = jopt.scale_by_adan()
    >>> tx.update(jnp.array([2.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(4)
    Array([ 1., -1.], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2, b3=b3)
    arguments.nonnegative(eps=eps, eps_root=eps_root)
    arguments.some_positive(eps=eps, eps_root=eps_root)
    weight = b2 if difference_weight is None else difference_weight

    def scalars(t):
        return {
            "t": t,
            "m_scale": 1 / one_minus_power(b1, t),
            "v_scale": weight / one_minus_power(b2, t),
            "n_scale": 1 / one_minus_power(b3, t),
        }

    def rule(g, m, v, n, previous_g, *, t, m_scale, v_scale, n_scale):
        # The slot starts at zero, not at a gradient: the first difference would be g.
        d = jnp.where(t > 1, g - previous_g, 0)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * abs_sq(g + weight * d)
        root = jnp.sqrt(n_scale * n + eps_root) + eps
        return ratio(m_scale * m + v_scale * v, root, eps, eps_root), m, v, n, g

    return leafwise(
        rule,
        scalars,
        ScaleByAdanState,
        m=zeros(m_dtype),
        v=zeros(v_dtype),
        n=zeros(n_dtype, real=True, divides=True),
        g=zeros(g_dtype),
    )


@transformation
def adan(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.98,
    b2: ScalarOrSchedule = 0.92,
    b3: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    no_prox: bool = False,
    m_dtype: StorageDtype | None = None,
    v_dtype: StorageDtype | None = None,
    n_dtype: StorageDtype | None = None,
    g_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Adan: adaptive Nesterov momentum.

    Matches the authors' code. optax's version uses the equations described at
    `scale_by_adan`, ``eps_root=1e-8``, and weight decay as with ``no_prox=True``.

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, b3, eps, eps_root: See `scale_by_adan`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      no_prox: Whether to decay as AdamW does, instead of by `proximal_decay`.
      m_dtype, v_dtype, n_dtype, g_dtype: See `scale_by_adan`.

    Returns:
      A transformation; it needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Xie et al., "Adan", 2022.

    >>> import jopt
    >>> jopt.adan(1e-2, weight_decay=0.02)
    adan(learning_rate=0.01, weight_decay=0.02)
    """
    scaled = scale_by_adan(
        b1,
        b2,
        b3,
        eps,
        eps_root,
        m_dtype=m_dtype,
        v_dtype=v_dtype,
        n_dtype=n_dtype,
        g_dtype=g_dtype,
    )
    decay = decoupled_decay(weight_decay, mask)
    if no_prox or not decay:
        return chain(scaled, *decay, scale_by_learning_rate(learning_rate))
    # The name under which the state has the learning rate without a decay, so that
    # adding one later leaves old checkpoints readable.
    step = proximal_decay(learning_rate, weight_decay, mask)
    return chain(scaled, scale_by_learning_rate=step)
