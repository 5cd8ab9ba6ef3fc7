"""ACProp: divide the gradient by AdaBelief's divisor of the previous step.

    m_t <- b1 m_(t-1) + (1 - b1) g_t
    u_t <- g_t / (sqrt(s^_(t-1)) + eps)         g_1 in the first step
    s_t <- b2 s_(t-1) + (1 - b2) (g_t - m_t)^2 + eps_root

Zhuang et al., "Momentum centering and asynchronous update for adaptive gradient
methods", 2021. The divisor does not depend on the gradient that it divides, so ACProp
converges where Adam does not. State: 8 bytes per float32 parameter. Settings as for
AdaBelief.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import check_adam
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAcpropState(NamedTuple):
    """State of `scale_by_acprop`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # mean square of g - m, like params, real


@transformation
def scale_by_acprop(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    *,
    previous_mean: bool = False,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide by the previous step's belief: ``u_t <- g_t / (sqrt(s^_(t-1)) + eps)``.

    The first update is the gradient itself.

    Args:
      b1: Decay of the first moment, in (0, 1). The moment only centres ``s``.
      b2: Decay of the mean square ``s``, in [0, 1).
      eps: Added to the square root, >= 0.
      eps_root: Added to ``s`` at every step, >= 0, so it accumulates.
      previous_mean: Whether ``s`` is about g minus the m of the step before, as in
        optax, contrary to its documentation: later updates are b1 times as large.
      mu_dtype, nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Zhuang et al., "Momentum centering and asynchronous update", 2021.

    >>> import jopt
    >>> tx = jopt.scale_by_acprop(b1=0.8)
    >>> first, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> first, tx.update(jnp.array([3.2]), state)[0].round(4)  # 3.2 / (b1 2.0)
    (Array([2.], dtype=float32), Array([2.], dtype=float32))
    """
    check_adam(b1, b2, eps, eps_root, "after")
    arguments.positive(b1=b1)  # b1 = 0 makes m equal to g, and s zero

    def scalars(t):
        # The first step does not use nu_scale; the maximum keeps it finite there.
        previous = jnp.maximum(t - 1, 1)
        return {"t": t, "nu_scale": 1 / one_minus_power(b2, previous)}

    def rule(g, mu, nu, *, t, nu_scale):
        # Before nu is updated: the divisor must not depend on g.
        root = jnp.where(t > 1, jnp.sqrt(nu_scale * nu) + eps, 1)
        new_mu = b1 * mu + (1 - b1) * g
        error = g - (mu if previous_mean else new_mu)
        nu = b2 * nu + (1 - b2) * abs_sq(error) + eps_root
        return ratio(g, root, eps, eps_root), new_mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAcpropState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """ACProp: the gradient over AdaBelief's divisor, which lags one step behind.

    Matches the paper, and the authors' code without rectification.

    Args:
      learning_rate: The step size, >= 0. It also multiplies the first update, which is
        the unscaled gradient.
      b1, b2, eps, eps_root: See `scale_by_acprop`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      mu_dtype, nu_dtype: See `scale_by_acprop`.

    Returns:
      A transformation; it needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Zhuang et al., "Momentum centering and asynchronous update", 2021.

    >>> import jopt
    >>> jopt.acprop(1e-3, weight_decay=0.01)
    acprop(learning_rate=0.001, weight_decay=0.01)
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
