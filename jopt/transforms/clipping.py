"""Clipping: bound a gradient elementwise, by its norm, or by its parameter's norm."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def clip(max_delta: ScalarOrSchedule) -> GradientTransformation:
    """Clip each element to [-max_delta, max_delta]; Keras's clipvalue.

    Args:
      max_delta: The bound, > 0; infinity clips nothing.

    Returns:
      A transformation for real gradients.

    Raises:
      ValueError: ``max_delta`` is not positive.

    >>> import jopt
    >>> tx = jopt.clip(1.0)
    >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0]
    Array([-1. ,  0.5], dtype=float32)
    """
    arguments.limit(max_delta=max_delta)

    def rule(g):
        return jnp.clip(g, -max_delta, max_delta)

    return leafwise(rule, real_only=True, gain="clip_factor")


def _factor(norm: jax.Array, max_norm: float | jax.Array) -> jax.Array:
    """Return the factor that brings a norm down to at most ``max_norm``.

    A norm of inf or NaN gives NaN: dividing by an infinite norm would give zeros, which
    look like a valid step.
    """
    # One division at the end: XLA repeats a cheaper last operation, and all before it,
    # in each loop of every leaf. Where nothing is clipped it is 1 / 1, also at a zero
    # norm if max_norm is zero, and the derivative is finite.
    clipped = ~(norm <= jnp.minimum(max_norm, jnp.finfo(norm.dtype).max))
    divisor = jnp.where(norm < jnp.inf, norm, jnp.nan)
    return jnp.where(clipped, max_norm, 1) / jnp.where(clipped, divisor, 1)


def excess(norm: jax.Array, max_norm: float | jax.Array) -> jax.Array:
    """Return ``max(1, norm / max_norm)``, what to divide by to clip; 1 at a zero norm.

    >>> excess(jnp.array([0.5, 8.0, 0.0]), 2.0)
    Array([1., 4., 1.], dtype=float32)
    """
    return jnp.maximum(norm / jnp.where(norm > 0, max_norm, 1), 1)


@transformation
def clip_by_global_norm(
    max_norm: ScalarOrSchedule, *, ord: float = 2.0, eps: float = 0.0
) -> GradientTransformation:
    """Bound the norm of all gradients together: ``u <- g min(1, max_norm / |G|)``.

    The norm is computed in float32 for any dtype, without overflow or underflow. If it
    is inf or NaN, all updates are NaN.

    Args:
      max_norm: The bound, > 0; infinity clips nothing.
      ord: The norm: 2 is Euclidean, 1 the sum of magnitudes, ``math.inf`` the largest.
      eps: Added to the norm, >= 0; torch's ``clip_grad_norm_`` uses 1e-6.

    Returns:
      A transformation.

    Raises:
      ValueError: An argument is out of range.

    Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural
    networks", 2013.

    >>> import jopt
    >>> tx = jopt.clip_by_global_norm(1.0)
    >>> grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> tx.update(grads, tx.init(grads))[0]
    {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    """
    arguments.limit(max_norm=max_norm)
    arguments.nonnegative(eps=eps)
    arguments.one_of((1.0, 2.0, math.inf), ord=ord)

    def scalars(updates):
        norm = tree.norm(updates, ord)
        return {"factor": _factor(norm + eps if eps else norm, max_norm)}

    return leafwise(lambda g, *, factor: factor * g, scalars, gain="clip_factor")


@transformation
def clip_by_norm(max_norm: ScalarOrSchedule) -> GradientTransformation:
    """Bound the norm of each leaf: ``u <- g min(1, max_norm / |g|)``; Keras's clipnorm.

    Args:
      max_norm: The bound, > 0; infinity clips nothing.

    Returns:
      A transformation.

    Raises:
      ValueError: ``max_norm`` is not positive.

    >>> import jopt
    >>> tx = jopt.clip_by_norm(1.0)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
    Array([0.6, 0.8], dtype=float32)
    """
    arguments.limit(max_norm=max_norm)

    def rule(g):
        return _factor(tree.norm_along(g, None), max_norm) * g

    return leafwise(rule, gain="clip_factor")


@transformation
def clip_by_block_rms(threshold: ScalarOrSchedule) -> GradientTransformation:
    """Bound the root mean square of each leaf: ``u <- g min(1, threshold / rms(g))``.

    Args:
      threshold: The bound, > 0; infinity clips nothing.

    Returns:
      A transformation.

    Raises:
      ValueError: ``threshold`` is not positive.

    Shazeer & Stern, "Adafactor", 2018, section 6.

    >>> import jopt
    >>> tx = jopt.clip_by_block_rms(1.0)
    >>> tx.update(jnp.array([3.0, -3.0]), tx.init(jnp.zeros(2)))[0].round(6)
    Array([ 1., -1.], dtype=float32)
    """
    arguments.limit(threshold=threshold)

    def rule(g):
        rms = tree.norm_along(g, None) / max(g.size, 1) ** 0.5
        return _factor(rms, threshold) * g

    return leafwise(rule, gain="clip_factor")


@transformation
def adaptive_grad_clip(
    clipping: ScalarOrSchedule,
    eps: ScalarOrSchedule = 1e-3,
    axis: int | tuple[int, ...] | None = None,
) -> GradientTransformation:
    """Bound each unit's gradient norm by a fraction of its weight norm.

        u <- g min(1, clipping max(|p|, eps) / |g|)

    A unit is the set of weights that feed one output. Its norm is over all axes but the
    last of a leaf with four or five axes, over the first axis of a leaf with two or
    three, and over the whole of any other leaf.

    Args:
      clipping: The fraction, > 0; 0.01 in the paper.
      eps: Lower bound of the weight norm, > 0, so that zero weights can grow.
      axis: The axes of a unit, instead of the above.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is not positive, or (at the first update) a leaf has six or
        more axes and ``axis`` is None.

    Brock, De, Smith & Simonyan, "High-performance large-scale image recognition without
    normalization", 2021.

    >>> import jopt
    >>> tx = jopt.adaptive_grad_clip(0.1)
    >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([6.0, 8.0])
    >>> tx.update(grads, tx.init(params), params)[0]
    Array([0.3, 0.4], dtype=float32)
    """
    arguments.limit(clipping=clipping)
    arguments.positive(eps=eps)

    def rule(g, *, p):
        unit = unit_axes(g.shape) if axis is None else axis
        max_norm = clipping * jnp.maximum(tree.norm_along(p, unit), eps)
        return _factor(tree.norm_along(g, unit), max_norm) * g

    return leafwise(rule, gain="clip_factor")


def unit_axes(shape: tuple[int, ...]) -> int | tuple[int, ...] | None:
    """Return the axes of a unit, such as the inputs of one output of a layer."""
    # A vector is one unit, also if axes of size 1 surround it: as in the authors' code.
    if sum(size != 1 for size in shape) <= 1:
        return None
    if len(shape) in (2, 3):
        return 0
    if len(shape) in (4, 5):  # kernels of convolutions, whose last axis is the outputs
        return tuple(range(len(shape) - 1))
    raise ValueError(
        f"adaptive_grad_clip does not know the units of a leaf of shape {shape}: pass "
        "axis"
    )
