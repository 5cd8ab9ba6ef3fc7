"""LARS: momentum with a learning rate for each layer, set by its norms.

    r <- trust_coefficient |p| / (|g| + weight_decay |p|)
    m <- momentum m + learning_rate r (g + weight_decay p)
    p <- p - m

You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017.

State: 4 bytes per float32 parameter. For convolutional networks and batches of many
thousands, with warmup and a polynomial decay of the learning rate. Biases and the
scales of normalization are usually masked, from the decay and from the ratio.
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
from jopt.core.treatment import Treatment
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
    """Add weight decay, and rescale each leaf's update to the norm of its parameter.

        u <- (g + weight_decay p) trust_coefficient |p| / (|g| + weight_decay |p| + eps)

    Where ``|p|`` or ``|g|`` is zero the ratio is 1.

    Args:
      weight_decay: Multiple of the parameter that is added to the gradient, >= 0.
      trust_coefficient: Norm of an update relative to that of its parameter, >= 0.
      eps: Added to the norms in the denominator, >= 0.
      mask: The leaves to decay and rescale; see `jopt.Mask`. Others pass unchanged.

    Returns:
      A transformation that needs params.

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

    treatment = Treatment(decay=(weight_decay,))
    return leafwise(rule, mask=mask, treatment=treatment)


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

    The trust ratio ``r = trust_coefficient |p| / (|g| + weight_decay |p| + eps)`` of
    each leaf makes steps proportional to its norm. For convolutional networks and
    batches of many thousands; mask biases and the scales of normalization.

    Args:
      learning_rate: Step size, >= 0.
      weight_decay: Decay that is added to the gradient, >= 0.
      weight_decay_mask: The leaves to decay; see `jopt.Mask`.
      trust_coefficient, eps: See `scale_by_lars`.
      trust_ratio_mask: The leaves to rescale; see `jopt.Mask`. Others have r = 1.
      momentum: Decay of the momentum, in [0, 1). A tunable or scheduled one is called
        ``decay`` in the state, as in `trace`.
      nesterov: See `trace`.
      norm: Denominator of r: ``"separate"`` is ``|g| + weight_decay |p|`` (the paper),
        ``"together"`` is ``|g + weight_decay p|`` (optax).

    Returns:
      A transformation that needs params. With masks, its state holds a tunable weight
      decay or trust coefficient twice.

    Raises:
      ValueError: A number is out of range.

    You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017.
    Equal to optax with ``norm="together"``.

    >>> import jopt
    >>> jopt.lars(0.1, weight_decay=1e-4, weight_decay_mask="kernel")
    lars(learning_rate=0.1, weight_decay=0.0001, weight_decay_mask='kernel')
    """
    arguments.one_of(("separate", "together"), norm=norm)
    decayed, scaled = weight_decay_mask, trust_ratio_mask
    if norm == "together":
        members = [
            add_decayed_weights(weight_decay, decayed),
            scale_by_trust_ratio(
                trust_coefficient=trust_coefficient, eps=eps, mask=scaled
            ),
        ]
    elif all(mask is True or mask is None for mask in (decayed, scaled)):
        members = [scale_by_lars(weight_decay, trust_coefficient, eps)]
    else:
        # Norms with and without decay differ, so each combination is its own member.
        both, only_scaled = _Overlap(decayed, scaled), _Overlap(scaled, decayed, False)
        members = [
            scale_by_lars(weight_decay, trust_coefficient, eps, both),
            scale_by_lars(0.0, trust_coefficient, eps, only_scaled),
            add_decayed_weights(weight_decay, _Overlap(decayed, scaled, False)),
        ]
    # The learning rate enters the momentum, as in the paper, so `trace` comes last.
    return chain(
        *members, scale_by_learning_rate(learning_rate), trace(momentum, nesterov)
    )


class _Overlap:
    """A mask: leaves that ``first`` selects and ``second`` selects too, or does not."""

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
