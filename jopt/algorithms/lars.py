"""LARS: momentum, with a learning rate of its own for every layer.

    r <- trust_coefficient |p| / (|g| + weight_decay |p|)
    m <- momentum m + learning_rate r (g + weight_decay p)
    p <- p - m

You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017.

State: 4 bytes per float32 parameter. For convolutional networks and batches of many
thousands, with warmup and a polynomial decay of the learning rate. It is usual to mask
biases and the scales of normalization, from the decay and from the ratio.
"""

from __future__ import annotations

from typing import Any, Literal

import jax

from jopt.core import masks
from jopt.core.chain import chain
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation, Params
from jopt.transforms.gradients import scale_by_trust_ratio, trust_ratio
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import trace
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.values.recipe import freeze


@transformation
def scale_by_lars(
    weight_decay: ScalarOrSchedule = 0.0,
    trust_coefficient: ScalarOrSchedule = 0.001,
    eps: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> GradientTransformation:
    """Decay, and give each leaf's update a size in proportion to its parameter.

        u <- (g + weight_decay p) trust_coefficient |p| / (|g| + weight_decay |p| + eps)

    Where ``|p|`` or ``|g|`` is zero the ratio is 1.

    Args:
      weight_decay: The multiple of the parameters, >= 0.
      trust_coefficient: The size relative to the parameter, >= 0.
      eps: Added to the norms, >= 0.
      mask: The leaves to do this to; see `add_decayed_weights`.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is negative.

    You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017.

    >>> import jax.numpy as jnp, jopt
    >>> tx, params = jopt.scale_by_lars(1.0, 1.0), jnp.array([3.0, 4.0])
    >>> tx.update(jnp.array([0.0, 5.0]), tx.init(params), params)[0]
    Array([1.5, 4.5], dtype=float32)
    """
    arguments.nonnegative(
        weight_decay=weight_decay, trust_coefficient=trust_coefficient, eps=eps
    )

    def rule(g, *, p):
        ratio = trust_ratio(g, p, trust_coefficient, eps, weight_decay=weight_decay)
        return ratio * (g + weight_decay * p)

    return leafwise(rule, mask=mask)


@transformation
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: ScalarOrSchedule = 0.001,
    eps: ScalarOrSchedule = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: ScalarOrSchedule = 0.9,
    nesterov: bool = False,
    *,
    norm: Literal["separate", "together"] = "separate",
) -> GradientTransformation:
    """LARS: ``m <- momentum m + learning_rate r (g + weight_decay p)``, ``p <- p - m``.

    Args:
      learning_rate: The step size, >= 0.
      weight_decay: >= 0, part of the gradient.
      weight_decay_mask: The leaves to decay; see `add_decayed_weights`.
      trust_coefficient: The size of a step relative to the parameter, >= 0.
      eps: Added to the norm that is divided by, >= 0.
      trust_ratio_mask: The leaves whose step gets that size; for others r = 1.
      momentum: In [0, 1). In the state a tunable or scheduled one has the name
        ``decay``, by which `trace` knows it.
      nesterov: Whether momentum looks one step ahead.
      norm: What is divided by: ``"separate"`` is ``|g| + weight_decay |p|``, as in the
        paper; ``"together"`` is ``|g + weight_decay p|`` (optax).

    Returns:
      A transformation; it needs params. With masks, a weight decay or a coefficient
      that is tunable is in the state twice.

    Raises:
      ValueError: A number is out of its range.

    You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017. As
    optax with ``norm="together"``.

    >>> import jopt
    >>> jopt.lars(0.1, weight_decay=1e-4, weight_decay_mask="kernel")
    lars(learning_rate=0.1, weight_decay=0.0001, weight_decay_mask='kernel')
    """
    arguments.one_of(("separate", "together"), norm=norm)
    decayed, scaled = weight_decay_mask, trust_ratio_mask
    if norm == "together":
        start = [
            add_decayed_weights(weight_decay, decayed),
            scale_by_trust_ratio(
                trust_coefficient=trust_coefficient, eps=eps, mask=scaled
            ),
        ]
    elif all(mask is True or mask is None for mask in (decayed, scaled)):
        start = [scale_by_lars(weight_decay, trust_coefficient, eps)]
    else:
        both, only_scaled = _Overlap(decayed, scaled), _Overlap(scaled, decayed, False)
        start = [
            scale_by_lars(weight_decay, trust_coefficient, eps, both),
            scale_by_lars(0.0, trust_coefficient, eps, only_scaled),
            add_decayed_weights(weight_decay, _Overlap(decayed, scaled, False)),
        ]
    return chain(
        *start, scale_by_learning_rate(learning_rate), trace(momentum, nesterov)
    )


class _Overlap:
    """A mask: the leaves that one mask selects and another one does, or does not."""

    def __init__(self, first: Mask, second: Mask, selected: bool = True):
        self.first, self.second, self.selected = first, second, selected
        self.key = freeze((first, second, selected))

    def __call__(self, params: Params) -> Any:
        pairs = zip(
            masks.select(self.first, params),
            masks.select(self.second, params),
            strict=True,
        )
        treedef = jax.tree.structure(params, is_leaf=lambda x: x is None)
        return treedef.unflatten(a and b is self.selected for a, b in pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Overlap) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
