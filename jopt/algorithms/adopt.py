"""ADOPT: Adam that converges with any b2.

    v_1 <- g_1^2, and no step
    n_t <- g_t / max(sqrt(v_(t-1)), eps), each element clipped to +-(t - 1)^(1/4)
    m_t <- b1 m_(t-1) + (1 - b1) n_t
    u_t <- m_t
    v_t <- b2 v_(t-1) + (1 - b2) g_t^2

Taniguchi et al., "ADOPT: modified Adam can converge with any beta2 with the optimal
rate", 2024. The divisor does not depend on the gradient that it divides, and momentum
averages gradients that are already normalized. State: 8 bytes per float32 parameter, 6
with ``mu_dtype="bfloat16"``. Settings as for Adam, but b2 = 0.9999.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import abs_sq, ratio, scalar
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


class ScaleByAdoptState(NamedTuple):
    """State of `scale_by_adopt`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # mean of the normalized gradients, like params
    nu: Any  # second moment, like params, real


class SkipFirstState(NamedTuple):
    """State of `skip_first`."""

    count: jax.Array  # int32 scalar, updates so far


def fourth_root(count: jax.Array) -> jax.Array:
    """Return ADOPT's clipping value after ``count`` updates."""
    return scalar(count) ** 0.25


@transformation
def scale_by_adopt(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.9999,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], Any] = fourth_root,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Average gradients divided by the root of the previous second moment.

    The first update is zero, because there is no previous second moment.

    Args:
      b1: Decay of the mean of the normalized gradients, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      eps: The smallest divisor, > 0.
      mu_dtype: See `scale_by_adam`.
      nesterov: Whether to average once more with the normalized gradient,
        ``u <- b1 m + (1 - b1) n``.
      use_clipping: Whether to clip the elements of the normalized gradient.
      clip_value_fn: A function from the number of updates so far, which is 1 at the
        first step that moves, to the clipping value.
      nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation. With clipping, complex leaves are an error; otherwise a complex
      number counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.
      TypeError: ``clip_value_fn`` is not a function.

    Taniguchi et al., "ADOPT", 2024, with the clipping of the authors' code.

    >>> import jopt
    >>> tx = jopt.scale_by_adopt(b1=0.0)
    >>> first, state = tx.update(jnp.array([2.0, 1.0]), tx.init(jnp.zeros(2)))
    >>> first, tx.update(jnp.array([1.0, 9.0]), state)[0]
    (Array([0., 0.], dtype=float32), Array([0.5, 1. ], dtype=float32))
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(eps=eps)
    if not callable(clip_value_fn):
        raise TypeError(
            "clip_value_fn must be a function of the number of updates so far, got "
            f"clip_value_fn={text_of(clip_value_fn)}"
        )

    def scalars(t):
        bound = clip_value_fn((t - 1).astype(jnp.int32)) if use_clipping else jnp.inf
        return {
            "t": t,
            "bound": scalar(bound),
            # The first step sets nu to g^2.
            "nu_decay": jnp.where(t > 1, scalar(b2), 0),
            "g_weight": jnp.where(t > 1, scalar(1 - b2), 1),
        }

    def rule(g, mu, nu, *, t, bound, nu_decay, g_weight):
        # Before nu is updated: the divisor must not depend on g.
        n = jnp.where(t > 1, ratio(g, jnp.maximum(jnp.sqrt(nu), eps), eps), 0)
        if use_clipping:
            n = jnp.clip(n, -bound, bound)
        mu = b1 * mu + (1 - b1) * n
        nu = nu_decay * nu + g_weight * abs_sq(g)
        return b1 * mu + (1 - b1) * n if nesterov else mu, mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByAdoptState,
        real_only=use_clipping,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def skip_first(steps: int = 1) -> GradientTransformation:
    """Zero the first updates, in which an optimizer only gathers statistics.

        u <- g if t > steps, else 0

    Args:
      steps: Number of updates to zero, >= 0.

    Returns:
      A transformation.

    Raises:
      ValueError: ``steps`` is negative.

    >>> import jopt
    >>> tx = jopt.skip_first()
    >>> first, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    >>> first, tx.update(jnp.ones(1), state)[0]
    (Array([0.], dtype=float32), Array([1.], dtype=float32))
    """
    arguments.at_least(0, steps=steps)

    def rule(g, *, t):
        return jnp.where(t > steps, g, 0)

    return leafwise(rule, lambda t: {"t": t}, SkipFirstState)


@transformation
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.9999,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], Any] = fourth_root,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """ADOPT: Adam that converges with any b2. The first step moves nothing.

    Matches optax and the authors' package torch-adopt. pytorch_optimizer clips at the
    next step's value, and decays weights in the first step.

    Args:
      learning_rate: The step size, >= 0.
      b1, b2, eps, mu_dtype: See `scale_by_adopt`.
      nesterov, use_clipping, clip_value_fn: See `scale_by_adopt`.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate;
        applied from the second step on.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_adopt`.

    Returns:
      A transformation; it needs params if there is a weight decay. A complex number
      counts by its magnitude, see `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.
      TypeError: ``clip_value_fn`` is not a function.

    Taniguchi et al., "ADOPT", 2024.

    >>> import jopt
    >>> jopt.adopt(1e-3, weight_decay=0.1)
    adopt(learning_rate=0.001, weight_decay=0.1)
    """
    scaled = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
        nu_dtype=nu_dtype,
    )
    decay = decoupled_decay(weight_decay, mask)
    if decay:
        # The first step only gathers statistics, so it must not decay either.
        decay.append(skip_first())
    return chain(scaled, *decay, scale_by_learning_rate(learning_rate))
