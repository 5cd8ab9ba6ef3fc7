"""CAME: Adafactor with momentum, trusted more where updates are steady.

    u <- g / sqrt(V)            V factored from row and column means of g^2 + eps1
    u <- u / max(1, rms(u) / d)
    m <- b1 m + (1 - b1) u
    u <- m / sqrt(S)            S factored from the same means of (u - m)^2 + eps2

V and S are moving averages with decays b2 and b3. S measures the instability of the
updates. For vectors, V has a value per element and there is no S.

Luo, Ren, Zheng, Jiang, Jiang & You, "CAME: confidence-guided adaptive memory efficient
optimization", 2023. State: 4 bytes per float32 parameter, 2 with
``mu_dtype="bfloat16"``, and ``8 (m + n) / (m n)`` more for an (m, n) matrix. Use it for
language models when Adam's state does not fit and Adafactor trains too slowly, with a
learning rate of 1e-4 to 5e-4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.algorithms.factored_rms import divide_by_rms, two_axes
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.clipping import excess
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByCameState(NamedTuple):
    """State of `scale_by_came`; rows and columns are None for vectors."""

    mu: Any  # momentum of the updates, like params
    v_row: Any  # mean squares of the gradient's rows
    v_col: Any  # mean squares of its columns
    v: Any  # mean squares of its elements; None except for vectors
    res_row: Any  # mean squares of the rows of the update minus momentum
    res_col: Any  # mean squares of the columns of the same difference


@transformation
def scale_by_came(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    eps1: ScalarOrSchedule = 1e-30,
    eps2: ScalarOrSchedule = 1e-16,
    clipping_threshold: ScalarOrSchedule = 1.0,
    mu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide momentum by its instability: ``u <- m / sqrt(S)``.

    The last two axes of a leaf are its rows and columns.

    Args:
      b1: Decay of the momentum, in [0, 1).
      b2: Decay of the gradient's mean squares, in [0, 1).
      b3: Decay of the instability's mean squares, in [0, 1).
      eps1: Added to the squares of the gradient, > 0.
      eps2: Added to the squares of the instability, > 0.
      clipping_threshold: Bound on the RMS of the update before momentum, > 0.
      mu_dtype: See `scale_by_adam`.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range.

    Luo et al., "CAME: confidence-guided adaptive memory efficient optimization", 2023.

    >>> import jopt
    >>> tx = jopt.scale_by_came()
    >>> updates, state = tx.update(jnp.array([2.0, -2.0]), tx.init(jnp.zeros(2)))
    >>> (10 * updates).round(4)
    Array([ 1., -1.], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2, b3=b3)
    arguments.positive(eps1=eps1, eps2=eps2, clipping_threshold=clipping_threshold)

    def rule(g, mu, v_row, v_col, v, res_row, res_col):
        axes = _axes(g.shape)
        u, rms, *v = divide_by_rms(g, v_row, v_col, v, axes, 1 - b2, eps1)
        u = u * (1 / excess(rms, clipping_threshold))
        mu = b1 * mu + (1 - b1) * u
        if axes is None:
            return mu, mu, *v, None, None
        squares = jnp.square(u - mu) + eps2
        res_row, res_col = (
            b3 * old + (1 - b3) * jnp.mean(squares, axis, keepdims=True)
            for old, axis in ((res_row, axes[0]), (res_col, axes[1]))
        )
        whole = jnp.mean(res_row, axes[1], keepdims=True)
        # Factor by factor: the product of two small means could underflow.
        u = mu * ratio(1, jnp.sqrt(res_row), eps2)
        u = u * ratio(jnp.sqrt(whole), jnp.sqrt(res_col), eps2)
        return u, mu, *v, res_row, res_col

    def over(which):
        return lambda shape: (axes[which],) if (axes := _axes(shape)) else None

    def vector(shape):
        return () if _axes(shape) is None else None

    return leafwise(
        rule,
        state=ScaleByCameState,
        real_only=True,
        mu=zeros(mu_dtype),
        v_row=zeros(over=over(0), divides=True),
        v_col=zeros(over=over(1), divides=True),
        v=zeros(over=vector, divides=True),
        res_row=zeros(over=over(0), divides=True),
        res_col=zeros(over=over(1), divides=True),
    )


def _axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    return two_axes(shape, least=1, which="last")


@transformation
def came(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    eps1: ScalarOrSchedule = 1e-30,
    eps2: ScalarOrSchedule = 1e-16,
    clipping_threshold: ScalarOrSchedule = 1.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> GradientTransformation:
    """CAME: ``p <- p - learning_rate (m / sqrt(S) + weight_decay p)``.

    Args:
      learning_rate: The step size, >= 0; 2e-4 in the paper.
      b1, b2, b3, eps1, eps2, clipping_threshold, mu_dtype: See `scale_by_came`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.

    Returns:
      A transformation, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range.

    Luo et al., "CAME: confidence-guided adaptive memory efficient optimization", 2023.
    Matches the authors' code exactly.

    >>> import jopt
    >>> jopt.came(2e-4, weight_decay=0.01)
    came(learning_rate=0.0002, weight_decay=0.01)
    """
    return chain(
        scale_by_came(b1, b2, b3, eps1, eps2, clipping_threshold, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
