"""Dynamic loss scaling: the largest scale at which float16 gradients are finite.

    g     <- g_scaled / scale        in float32
    u     <- inner(g)                if g is finite, else 0, and the inner state stays
    scale <- growth_factor scale     after ``growth_interval`` finite steps in a row
    scale <- backoff_factor scale    after a step that is not finite

float16 has no numbers below 6e-8, so small gradients of a float16 model become zero;
scaling the loss prevents this. bfloat16 has the range of float32 and needs no loss
scale. Micikevicius et al., "Mixed precision training", 2018. State: five scalars.
Compiled for a TPU, a step of adamw moves 32 bytes per float32 parameter instead of 28;
36, and 4 bytes of memory, if ``inner`` computes a norm, for example to clip.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.around import around
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.fused import fused_update
from jopt.core.leaves import Leaves, wide
from jopt.core.order import check_changeable
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    OptState,
    Updates,
)
from jopt.tree.variables import sees_arrays
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.guards import all_finite, bad_steps, has_loss_scale


class DynamicLossScaleState(NamedTuple):
    """State of `dynamic_loss_scale`."""

    loss_scale: jax.Array  # float32 scalar, factor of the next loss
    growth_count: jax.Array  # int32 scalar, finite steps in a row at this scale
    notfinite_count: jax.Array  # int32 scalar, consecutive skipped steps so far
    last_finite: jax.Array  # bool scalar, whether the last step was finite
    total_notfinite: jax.Array  # int32 scalar, all skipped steps
    inner_state: Any  # state of the inner transformation
    metrics = ("loss_scale", "notfinite_count", "last_finite", "total_notfinite")


TINY, HUGE = (float(x) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


class Preset(NamedTuple):
    """Points in which the rules of the libraries differ."""

    init_scale: float
    min_scale: float = TINY
    late: bool = False  # grow in the step after ``growth_interval`` finite ones
    clamps: bool = False  # clamp growth at ``max_scale``; if False, do not grow past it


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
    preset: Literal["keras", "keras2", "torch", "flax", "jmp"] = "keras",
    *,
    init_scale: float | None = None,
    growth_interval: int = 2000,
    growth_factor: ScalarOrSchedule = 2.0,
    backoff_factor: ScalarOrSchedule = 0.5,
    min_scale: float | None = None,
    max_scale: float | None = None,
) -> GradientTransformation:
    """Divide the gradients of a scaled loss by the scale, and adapt the scale.

    Scale the loss with `scale_loss` and pass its gradients to ``update`` unchanged.
    Clipping, weight decay, accumulation and everything else belong into ``inner``,
    which sees unscaled gradients. A step whose gradients are not finite returns zero
    updates, keeps the inner state bit for bit, and reduces the scale.

    A preset reproduces the scales of a library, step by step: ``"keras"`` Keras 3's
    ``LossScaleOptimizer``, ``"keras2"`` that of Keras 2, ``"torch"`` ``GradScaler``,
    ``"flax"`` ``DynamicScale`` and ``"jmp"`` ``DynamicLossScale``. They start at 2^15
    (torch and flax: 2^16). The scale is at least 1 in Keras 2 and jmp, and flax takes
    one step more to grow. In Keras 3 and torch the scale can become 0, in Keras 3 also
    infinite, and never recovers; here it stays in [2^-126, 2^128). The inner count does
    not advance in skipped steps; in Keras 2 it does.

    Args:
      inner: A transformation, usually the whole optimizer.
      preset: The library whose rule to follow, see above.
      init_scale: The first scale, > 0; None means the preset's.
      growth_interval: Number of finite steps in a row before the scale grows, >= 1.
      growth_factor: Factor of the scale when it grows, >= 1.
      backoff_factor: Factor of the scale after a step that is not finite, in (0, 1).
      min_scale: The smallest scale; None means the preset's.
      max_scale: The largest scale; None means the largest float32 number.

    Returns:
      A transformation. Extra arguments are passed to ``inner`` unchanged, so pass the
      unscaled loss as ``value``. All devices must receive the same gradients: average
      them first.

    Raises:
      ValueError: A number is out of range, or ``inner`` already has a loss scale.

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
    check_changeable("dynamic_loss_scale", inner)
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
        inner_state = inner.init(params)
        if has_loss_scale(inner_state):
            raise ValueError(
                "dynamic_loss_scale: inner already has a loss scale, but a loss can "
                f"have only one. Got {inner!r}"
            )
        zero = jnp.zeros((), jnp.int32)
        return DynamicLossScaleState(
            loss_scale=jnp.full((), first, jnp.float32),
            growth_count=zero,
            notfinite_count=jnp.copy(zero),
            last_finite=jnp.ones((), bool),
            total_notfinite=jnp.copy(zero),
            inner_state=inner_state,
        )

    def adapt(scale, count, finite):
        due = count >= growth_interval - 1 + rule.late
        grown = scale * jnp.asarray(growth_factor, jnp.float32)
        above = high if rule.clamps else scale  # what growth past max_scale becomes
        grown = jnp.where(due, jnp.where(grown <= high, grown, above), scale)
        shrunk = jnp.maximum(scale * jnp.asarray(backoff_factor, jnp.float32), low)
        # A scale or factor that was set by hand or scheduled must not lead to 0 or
        # infinity either, from which no factor leads back.
        scale = jnp.clip(jnp.where(finite, grown, shrunk), TINY, HUGE)
        return scale, jnp.where(finite & ~due, count + 1, 0)

    def update(updates, state, params=None, **extra):
        leaves = Leaves(updates, row_sparse=True)
        grads = _unscale(updates, state.loss_scale)
        # Not all_finite(updates): at a scale below 1 the division may overflow.
        finite = all_finite(grads)
        new, inner_state = fused_update(
            inner, grads, state.inner_state, params, extra, take=finite
        )
        new = leaves.rounded(new)
        scale, count = adapt(state.loss_scale, state.growth_count, finite)
        counts = bad_steps(finite, state.notfinite_count, state.total_notfinite)
        return new, DynamicLossScaleState(
            scale, count, counts[0], finite, counts[1], inner_state
        )

    return around(
        inner,
        init,
        update,
        DynamicLossScaleState,
        also=Needs(frozenset(), frozenset()),
    )


@jax.jit
def _unscale(updates: Updates, scale: jax.Array) -> Updates:
    """Return the gradients in float32 or wider, divided by the scale."""
    # Compilers turn a division by a scalar into a product with its reciprocal. For the
    # largest scales the reciprocal is subnormal and flushed to zero, hence two factors.
    far = jnp.where(scale > 2.0**64, 2.0**-64, 1.0).astype(scale.dtype)
    near = 1 / (scale * far)

    def divide(g):
        if not jnp.issubdtype(g.dtype, jnp.inexact):
            return g  # the ids of a row-sparse leaf
        g = wide(g)
        if jnp.iscomplexobj(g):
            return jax.lax.complex(divide(jnp.real(g)), divide(jnp.imag(g)))
        return g * near.astype(g.dtype) * far.astype(g.dtype)

    return jax.tree.map(divide, updates)


@sees_arrays()
def scale_loss(state: OptState, loss: jax.Array) -> jax.Array:
    """Multiply a loss by the scale of `dynamic_loss_scale`, to differentiate it.

    Args:
      state: The optimizer state, or anything that contains it, such as a train state.
      loss: The loss, best in float32: in float16 the largest scale is 2^15.

    Returns:
      The scaled loss, in float32 or wider. Pass its gradients to ``update`` unchanged.

    Raises:
      ValueError: The state contains no loss scale, or more than one.

    >>> import jopt
    >>> tx = jopt.dynamic_loss_scale(jopt.adam(1e-3), init_scale=8.0)
    >>> scale_loss(tx.init(jnp.ones(3)), jnp.float32(0.5))
    Array(4., dtype=float32)
    """
    matches = tree.get_all_with_path(state, "DynamicLossScaleState")
    if len(matches) != 1:
        where = [tree.path_name(path) for path, _ in matches]
        what = f"has several loss scales, {where}" if matches else "has no loss scale"
        raise ValueError(
            f"scale_loss: the state {what}. Give the state of an optimizer with one "
            "jopt.dynamic_loss_scale, outside of everything else"
        )
    scale = matches[0][1].loss_scale
    loss = jnp.asarray(loss)
    wide = np.promote_types(loss.dtype, scale.dtype)
    return loss.astype(wide) * scale.astype(wide)
