"""SM3: AdaGrad with one accumulator per row, column, ... instead of per element.

    v     <- min_r a_r + g^2          a_r belongs to one index of one axis
    a_r   <- max of v over its slice
    u     <- g / sqrt(v)              0 where v = 0
    m     <- b1 m + (1 - b1) u        and m is the update

Anil, Gupta, Koren & Singer, "Memory-efficient adaptive optimization", 2019, algorithm
SM3-II. State: ``4 (m + n) / (m n)`` bytes per float32 parameter of an (m, n) matrix, 4
of a vector, and 4 more of either for momentum. Like AdaGrad, it suits large embeddings
and sparse gradients; learning rate 0.1 to 1 with warmup and no decay.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleBySm3State(NamedTuple):
    """State of `scale_by_sm3`."""

    mu: Any  # accumulators: a tuple of trees, the k-th for the k-th axes
    nu: Any  # momentum, like params; None if there is none


@transformation
def scale_by_sm3(
    b1: ScalarOrSchedule | None = 0.9,
    b2: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-8,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide by the root of the smallest accumulator: ``u <- g / sqrt(v + eps)``.

    Args:
      b1: Decay of the momentum, in [0, 1); None keeps no momentum.
      b2: Decay of the mean of squares, in [0, 1); 1 sums them instead.
      eps: Added under the root, >= 0; 0 in the paper.
      nu_dtype: Storage dtype of the momentum; None means float32 or wider.

    Returns:
      A transformation for real numbers.

    Raises:
      ValueError: A number is out of range.

    Anil, Gupta, Koren & Singer, "Memory-efficient adaptive optimization", 2019. optax
    fails for leaves without axes.

    >>> import jopt
    >>> tx = jopt.scale_by_sm3()
    >>> [a.shape for a in tx.init(jnp.ones((2, 3))).mu]
    [(2, 1), (1, 3)]
    """
    arguments.decay_rate(b1=b1)
    arguments.fraction(b2=b2)
    arguments.nonnegative(eps=eps)

    def rule(g, mu, nu):
        # b2 = 1 sums the squares, as in the paper.
        share = jnp.where(b2 == 1, 1, 1 - b2)
        v = b2 * functools.reduce(jnp.minimum, mu) + share * g * g
        # An element without a gradient so far gets no update, not 0 / 0.
        seen = v > 0
        u = jnp.where(seen, g / jnp.sqrt(jnp.where(seen, v, 1) + eps), 0)
        mu = tuple(
            jnp.max(v, axes, keepdims=True, initial=0) if axes else v
            for axes in other_axes(g.shape)
        )
        if b1 is None:
            return u, mu, None
        nu = b1 * nu + (1 - b1) * u
        return nu, mu, nu

    return leafwise(
        rule,
        state=ScaleBySm3State,
        real_only=True,
        mu=zeros(each=other_axes, divides=True),
        nu=zeros(nu_dtype, over=None if b1 is not None else lambda shape: None),
    )


def other_axes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return for every axis all other axes; one empty tuple for a leaf without axes."""
    axes = range(len(shape))
    return [tuple(i for i in axes if i != axis) for axis in axes] or [()]


@transformation
def sm3(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = 0.9,
    *,
    b2: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """SM3: ``p <- p - learning_rate g / sqrt(min_r a_r + g^2)``, with momentum.

    AdaGrad with one accumulator per row and per column of a matrix, instead of one per
    element. For large embeddings and sparse gradients, with a learning rate of 0.1 to 1
    after a warmup, and no decay.

    Args:
      learning_rate: Step size, >= 0.
      momentum: Decay of the momentum of the rescaled gradients, in [0, 1); None keeps
        no momentum. A tunable or scheduled one is called ``b1`` in the state.
      b2: See `scale_by_sm3`.
      eps: Added under the root, >= 0; 0 in the paper, 1e-30 in pytorch_optimizer.
      weight_decay: Decoupled decay coefficient, >= 0, multiplied by the learning rate;
        None means no decay.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_sm3`.

    Returns:
      A transformation for real numbers.

    Raises:
      ValueError: A number is out of range.

    Anil, Gupta, Koren & Singer, "Memory-efficient adaptive optimization", 2019.

    >>> import jopt
    >>> jopt.sm3(0.1, momentum=None)
    sm3(learning_rate=0.1, momentum=None)
    """
    return chain(
        scale_by_sm3(momentum, b2, eps, nu_dtype=nu_dtype),
        *decoupled_decay(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
