"""Weight decay by an implicit (proximal) step, which divides the parameters."""

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
from jopt.core.treatment import Treatment
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def proximal_decay(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> GradientTransformation:
    """Apply the learning rate, and weight decay by an implicit step.

        p <- (p - learning_rate g) / (1 + learning_rate weight_decay)

    It replaces `add_decayed_weights` and `scale_by_learning_rate` and differs from them
    in second order of the learning rate. The decay never flips the sign of a parameter,
    however large it is.

    Args:
      learning_rate: The step size, >= 0.
      weight_decay: The decay rate, >= 0.
      mask: The leaves to decay; see `jopt.Mask`. With a mask, 16-bit updates are
        rounded once more.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``learning_rate`` or ``weight_decay`` is negative or not finite.

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
        _MASKED_STEP.init(params)  # only for its check of the parameters
        return NO_STATE

    def update(updates, state, params):
        leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
        flags = (
            None if p is None else jnp.full((1,) * jnp.ndim(p), on, jnp.float32)
            for p, on in zip(leaves, masks.select(mask, params), strict=True)
        )
        updates, _ = _MASKED_STEP.update(
            updates,
            _MaskedStepState(treedef.unflatten(flags)),
            params,
            step_size=jnp.asarray(learning_rate),
            decay=jnp.asarray(weight_decay),
        )
        return updates, state

    treatment = Treatment(
        factor=(-1.0, learning_rate), decay=(weight_decay,), mask=mask
    )
    return GradientTransformation(init, update, treatment=treatment)


def _step(g: jax.Array, p: jax.Array, rate: Any, decay: Any) -> jax.Array:
    return -rate * (g + decay * p) / (1 + rate * decay)


class _MaskedStepState(NamedTuple):
    decays: Any  # for each leaf, 1 if it decays, otherwise 0


def _masked_step(
    g: jax.Array,
    decays: jax.Array,
    *,
    p: jax.Array,
    step_size: jax.Array,
    decay: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    return _step(g, p, step_size, decay * decays), decays


# Not leafwise's own mask, which passes the other leaves unchanged: leaves without decay
# still take the learning rate. The flag is a slot instead.
_MASKED_STEP = leafwise(
    _masked_step,
    lambda step_size, decay: {"step_size": step_size, "decay": decay},
    _MaskedStepState,
    decays=zeros(real=True, over=lambda shape: tuple(range(len(shape)))),
)
