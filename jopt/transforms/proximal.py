"""Weight decay by an implicit step: the parameters are divided, not subtracted from."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core import masks
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def proximal_decay(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> GradientTransformation:
    """Minus the learning rate, and weight decay by an implicit step.

        p <- (p - learning_rate g) / (1 + learning_rate weight_decay)

    It takes the place of `add_decayed_weights` and `scale_by_learning_rate`, from which
    it differs by the square of the learning rate. However large the decay is, it never
    turns a parameter around.

    Args:
      learning_rate: The step size, >= 0.
      weight_decay: >= 0.
      mask: The leaves to decay; see `add_decayed_weights`. With a mask, updates in 16
        bits are rounded once more.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range.

    Zhuang et al., "Understanding AdamW through proximal methods and scale-freeness",
    2022.

    >>> import jopt
    >>> tx, p = jopt.proximal_decay(0.5, weight_decay=2.0), jnp.array([4.0])
    >>> p + tx.update(jnp.array([0.0]), tx.init(p), p)[0]
    Array([2.], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)
    if mask is None:
        return leafwise(lambda g, *, p: _step(g, p, learning_rate, weight_decay))

    def init(params):
        _MASKED_STEP.init(params)  # raises if they are no parameters
        return NO_STATE

    def update(updates, state, params):
        leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
        decays = (
            None if p is None else jnp.full((1,) * jnp.ndim(p), on, jnp.float32)
            for p, on in zip(leaves, masks.select(mask, params), strict=True)
        )
        updates, _ = _MASKED_STEP.update(
            updates,
            _MaskedStepState(treedef.unflatten(decays)),
            params,
            step_size=jnp.asarray(learning_rate),
            decay=jnp.asarray(weight_decay),
        )
        return updates, state

    return GradientTransformation(init, update)


def _step(g: jax.Array, p: jax.Array, rate: Any, decay: Any) -> jax.Array:
    return -rate * (g + decay * p) / (1 + rate * decay)


class _MaskedStepState(NamedTuple):
    decays: Any  # for each leaf 1 if it decays, else 0


def _masked_step(
    g: jax.Array,
    decays: jax.Array,
    *,
    p: jax.Array,
    step_size: jax.Array,
    decay: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    return _step(g, p, step_size, decay * decays), decays


# The mask of a leafwise transformation says which leaves it leaves alone. Those that do
# not decay are multiplied by the learning rate all the same: a slot tells the rule.
_MASKED_STEP = leafwise(
    _masked_step,
    lambda step_size, decay: {"step_size": step_size, "decay": decay},
    _MaskedStepState,
    decays=zeros(real=True, over=lambda shape: tuple(range(len(shape)))),
)
