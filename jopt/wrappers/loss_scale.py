"""Dynamic loss scaling: the largest scale at which float16 gradients are finite.

    g     <- g_scaled / scale                     in float32
    u     <- inner(g)     if all of g are finite, else 0, and the inner state stays
    scale <- growth_factor scale     after ``growth_interval`` finite steps in a row
    scale <- backoff_factor scale    after a step that is not finite

float16 has no numbers below 6e-8, so small gradients of a float16 model are zero; those
of a larger loss are not. bfloat16 has the range of float32 and needs no loss scale.
Micikevicius et al., "Mixed precision training", 2018. State: five scalars. Compiled for
a TPU, a step of adamw moves 4 bytes more per float32 parameter, 32 for 28; 8 more, and
4 bytes of memory, if a norm is computed inside, as for clipping.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import tree_checks
from jopt.core.around import around
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    OptState,
    Updates,
)
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.guards import all_finite, bad_steps, chosen, has_loss_scale


class DynamicLossScaleState(NamedTuple):
    """State of `dynamic_loss_scale`."""

    loss_scale: jax.Array  # float32 scalar, what the next loss is multiplied by
    growth_count: jax.Array  # int32 scalar, finite steps in a row at this scale
    notfinite_count: jax.Array  # int32 scalar, steps in a row that were skipped
    last_finite: jax.Array  # bool scalar, whether the last step was not
    total_notfinite: jax.Array  # int32 scalar, all steps that were skipped
    inner_state: Any  # of the inner transformation
    metrics = ("loss_scale", "notfinite_count", "last_finite", "total_notfinite")


TINY, HUGE = (float(x) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


class Preset(NamedTuple):
    """Where the rules of the libraries differ."""

    init_scale: float
    min_scale: float = TINY
    late: bool = False  # it grows in the step after ``growth_interval`` finite ones
    clamps: bool = False  # what would be above ``max_scale`` is that, not unchanged


PRESETS = {
    "keras": Preset(2.0**15),
    "keras2": Preset(2.0**15, min_scale=1.0),
    "torch": Preset(2.0**16),
    "flax": Preset(2.0**16, late=True, clamps=True),
    "jmp": Preset(2.0**15, min_scale=1.0),
}


@transformation
def dynamic_loss_scale(
    inner: GradientTransformation,
    preset: str = "keras",
    *,
    init_scale: float | None = None,
    growth_interval: int = 2000,
    growth_factor: ScalarOrSchedule = 2.0,
    backoff_factor: ScalarOrSchedule = 0.5,
    min_scale: float | None = None,
    max_scale: float | None = None,
) -> GradientTransformation:
    """Divide the gradients of a scaled loss by the scale, and adapt the scale.

    The loss is multiplied with `scale_loss`, and its gradients go into the update as
    they are. Clipping, weight decay, accumulation and all else stand inside, where the
    gradients are right. A step whose gradients are not finite gives zero updates and
    leaves the inner state as it is, bit for bit; the scale comes down.

    The preset is whose scales these are, step by step: ``"keras"`` Keras 3's
    ``LossScaleOptimizer``, ``"keras2"`` that of Keras 2, ``"torch"`` ``GradScaler``,
    ``"flax"`` ``DynamicScale`` and ``"jmp"`` ``DynamicLossScale``. They start at 2^15
    (torch and flax 2^16), the scale is at least 1 in Keras 2 and jmp, and flax takes
    one step more to grow. Keras 3 and torch let the scale become 0, Keras 3 also
    infinite, and never come back; here it stays from 2^-126 to below 2^128. The inner
    count stands still in steps that are skipped; Keras 2 moved it.

    Args:
      inner: A transformation, usually the whole optimizer.
      preset: Whose rule it is, see above.
      init_scale: The first scale, > 0; None is the preset's.
      growth_interval: After how many finite steps in a row the scale grows, >= 1.
      growth_factor: What it is multiplied by then, >= 1.
      backoff_factor: What it is multiplied by after a step that is not finite, in
        (0, 1).
      min_scale: The lowest scale; None is the preset's.
      max_scale: The largest scale; None is any that float32 has.

    Returns:
      A transformation. Extra arguments, the loss as ``value`` among them, go to the
      inner one as they are: give the loss that is not scaled. On several devices all
      must see the same gradients: average them first.

    Raises:
      ValueError: A number is out of its range, or ``inner`` has a loss scale already.

    >>> import jopt
    >>> def loss(w):
    ...     return 1e-9 * w.astype("float16").astype("float32")
    >>> tx, w = jopt.dynamic_loss_scale(jopt.sgd(1.0)), jnp.float32(1.0)
    >>> state = tx.init(w)
    >>> scaled = jax.grad(lambda w: jopt.scale_loss(state, loss(w)))(w)
    >>> updates, state = tx.update(scaled, state, w)
    >>> f"{jax.grad(loss)(w):.1e} {updates:.1e}"
    '0.0e+00 -1.0e-09'
    """
    inner = as_transformation(inner, "dynamic_loss_scale: inner")
    arguments.one_of(PRESETS, preset=preset)
    rule = PRESETS[preset]
    first = rule.init_scale if init_scale is None else init_scale
    low = rule.min_scale if min_scale is None else min_scale
    high = HUGE if max_scale is None else max_scale
    arguments.at_least(1, growth_interval=growth_interval)
    if not TINY <= low <= first <= high <= HUGE:
        raise ValueError(
            f"{TINY:.4g} <= min_scale <= init_scale <= max_scale <= {HUGE:.4g} must "
            f"hold, got min_scale={low:.4g}, init_scale={first:.4g}, "
            f"max_scale={high:.4g}"
        )
    arguments.positive(growth_factor=growth_factor, backoff_factor=backoff_factor)
    arguments.at_least(1, growth_factor=growth_factor)
    arguments.decay_rate(backoff_factor=backoff_factor)

    def init(params):
        own = inner.init(params)
        if has_loss_scale(own):
            raise ValueError(
                "dynamic_loss_scale: inner has a loss scale already, and the gradients "
                f"of one loss have one scale. Got {inner!r}"
            )
        zero = jnp.zeros((), jnp.int32)
        return DynamicLossScaleState(
            loss_scale=jnp.full((), first, jnp.float32),
            growth_count=zero,
            notfinite_count=jnp.copy(zero),
            last_finite=jnp.ones((), bool),
            total_notfinite=jnp.copy(zero),
            inner_state=own,
        )

    def moved(scale, count, finite):
        due = count >= growth_interval - 1 + rule.late
        grown = scale * jnp.asarray(growth_factor, jnp.float32)
        above = high if rule.clamps else scale
        grown = jnp.where(due, jnp.where(grown <= high, grown, above), scale)
        shrunk = jnp.maximum(scale * jnp.asarray(backoff_factor, jnp.float32), low)
        # Also a number that was put into the state, or scheduled, leads out of neither.
        scale = jnp.clip(jnp.where(finite, grown, shrunk), TINY, HUGE)
        return scale, jnp.where(finite & ~due, count + 1, 0)

    def update(updates, state, params=None, **extra):
        leaves = jax.tree.leaves(updates, is_leaf=lambda x: x is None)
        tree_checks.leaves(leaves, updates, "updates")
        grads = _unscaled(updates, state.loss_scale)
        new, own = inner.update(grads, state.inner_state, params, **extra)
        # What overflows in the division, at a scale below 1, is skipped too.
        finite = all_finite(grads)
        new, own = chosen(finite, (new, own), (None, state.inner_state))
        new = jax.tree.map(lambda g, u: u.astype(jnp.result_type(g)), updates, new)
        scale, count = moved(state.loss_scale, state.growth_count, finite)
        counts = bad_steps(finite, state.notfinite_count, state.total_notfinite)
        return new, DynamicLossScaleState(
            scale, count, counts[0], finite, counts[1], own
        )

    return around(inner, init, update, also=Needs(frozenset(), frozenset()))


@jax.jit
def _unscaled(updates: Updates, scale: jax.Array) -> Updates:
    """The gradients in float32 or wider, divided by the scale."""
    # Compilers make of a division by one number a product with its reciprocal, which is
    # below the normal numbers, so zero, where the scale is largest. Hence two factors.
    far = jnp.where(scale > 2.0**64, 2.0**-64, 1.0).astype(scale.dtype)
    near = 1 / (scale * far)

    def divided(g):
        g = jnp.asarray(g)
        g = g.astype(tree.compute_dtype(g.dtype))
        if jnp.iscomplexobj(g):
            return jax.lax.complex(divided(jnp.real(g)), divided(jnp.imag(g)))
        return g * near.astype(g.dtype) * far.astype(g.dtype)

    return jax.tree.map(divided, updates)


def scale_loss(state: OptState, loss: jax.Array) -> jax.Array:
    """The loss to take gradients of: times the scale of `dynamic_loss_scale`.

    Args:
      state: The optimizer state, or anything that holds it, such as a train state.
      loss: The loss, best in float32: in float16 the largest scale is 2^15.

    Returns:
      The scaled loss, in float32 or wider. Its gradients go to ``update`` as they are.

    Raises:
      ValueError: There is no loss scale in the state, or more than one.

    >>> import jopt
    >>> tx = jopt.dynamic_loss_scale(jopt.adam(1e-3), init_scale=8.0)
    >>> scale_loss(tx.init(jnp.ones(3)), jnp.float32(0.5))
    Array(4., dtype=float32)
    """
    found = tree.get_all_with_path(state, "DynamicLossScaleState")
    if len(found) != 1:
        where = [tree.path_name(path) for path, _ in found]
        what = f"has several loss scales, {where}" if found else "has no loss scale"
        raise ValueError(
            f"scale_loss: the state {what}. Give the state of an optimizer with one "
            "jopt.dynamic_loss_scale in it, outside of all else"
        )
    (scale,) = jax.tree.leaves(found[0][1].loss_scale)  # nnx wraps arrays
    loss = jnp.asarray(loss)
    wide = np.promote_types(loss.dtype, scale.dtype)
    return loss.astype(wide) * scale.astype(wide)
