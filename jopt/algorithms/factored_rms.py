"""Factored second moments: row and column means instead of a moment per element.

    R <- b R + (1 - b) mean_j(g^2),   C <- b C + (1 - b) mean_i(g^2)
    u <- g / sqrt(V)                  with V = R C^T / mean(R), b = 1 - t^-0.8

Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018,
algorithm 4. State: ``4 (m + n) / (m n)`` bytes per float32 parameter of an (m, n)
matrix, 4 bytes of a vector. The decay b starts at 0, so it needs no bias correction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.transforms.clipping import excess
from jopt.tree import abs_sq, ratio
from jopt.tree.platforms import read_apart
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


FactoredAxes = Literal["largest", "last"]
FactoredEpsMode = Literal["add", "clamp"]


class ScaleByFactoredRmsState(NamedTuple):
    """State of `scale_by_factored_rms`."""

    count: jax.Array  # int32 scalar, updates so far
    v_row: Any  # mean squares along the larger axis; None if not factored
    v_col: Any  # mean squares along the smaller axis; None if not factored
    v: Any  # mean squares of the elements; None if factored


@transformation
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: ScalarOrSchedule = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: ScalarOrSchedule | None = 1e-30,
    decay_rate_fn: Callable[..., Any] | None = None,
    *,
    clipping_threshold: ScalarOrSchedule | None = None,
    factored_axes: FactoredAxes = "largest",
    eps_mode: FactoredEpsMode = "add",
) -> GradientTransformation:
    """Divide by a factored root mean square: ``u <- g / sqrt(R C^T / mean(R))``.

    Args:
      factored: Whether to keep only row and column means; False keeps a moment per
        element.
      decay_rate: Exponent of the decay ``b_t = 1 - t^-decay_rate``, > 0; a larger one
        averages over more steps.
      step_offset: Number of steps that the decay does not count, >= 0, such as the
        length of an earlier phase of training.
      min_dim_size_to_factor: A leaf is factored if both axes are at least this long.
      epsilon: Keeps the divisor positive, > 0; ``eps_mode`` says how. None means the
        machine epsilon, and needs ``eps_mode="clamp"``.
      decay_rate_fn: ``decay_rate_fn(step, decay_rate)`` replaces ``b_t``. It returns a
        number in [0, 1]; the first step is 0.
      clipping_threshold: Bound on the RMS of each leaf's update, > 0; None means no
        bound. The same as `clip_by_block_rms` after this, with less memory traffic.
      factored_axes: The axes to factor in leaves with more than two: the two
        ``"largest"`` (optax) or the two ``"last"`` (torch, Keras).
      eps_mode: ``"add"`` adds epsilon to the squares (paper, optax, Keras). ``"clamp"``
        bounds mean(R) and the divisor from below by epsilon (torch).

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or ``epsilon`` is None without
        ``eps_mode="clamp"``.

    Shazeer & Stern, "Adafactor", 2018. With a ``step_offset`` > 0, optax returns NaN.

    >>> import jopt
    >>> tx = jopt.scale_by_factored_rms(min_dim_size_to_factor=2)
    >>> state = tx.init(jnp.ones((2, 3)))
    >>> state.v_row.shape, state.v_col.shape, state.v
    ((2, 1), (1, 3), None)
    >>> tx.update(jnp.full((2, 3), 5.0), state)[0].round(4)
    Array([[1., 1., 1.],
           [1., 1., 1.]], dtype=float32)
    """
    arguments.positive(decay_rate=decay_rate, epsilon=epsilon)
    arguments.at_least(0, step_offset=step_offset)
    arguments.at_least(1, min_dim_size_to_factor=min_dim_size_to_factor)
    arguments.positive(clipping_threshold=clipping_threshold)
    arguments.one_of(("largest", "last"), factored_axes=factored_axes)
    arguments.one_of(("add", "clamp"), eps_mode=eps_mode)
    if epsilon is None and eps_mode == "add":
        raise ValueError("epsilon=None needs eps_mode='clamp', got eps_mode='add'")

    def axes(shape):
        return two_axes(shape, min_dim_size_to_factor, factored_axes, factored)

    def over(which):
        return lambda shape: (pair[which],) if (pair := axes(shape)) else None

    def scalars(t):
        t = jnp.maximum(t - step_offset, 1)
        if decay_rate_fn is None:
            return {"share": t**-decay_rate}
        return {"share": 1 - decay_rate_fn(t - 1, decay_rate)}

    def rule(g, v_row, v_col, v, *, share):
        eps = jnp.finfo(g.dtype).eps if epsilon is None else epsilon
        added, floor = (eps, None) if eps_mode == "add" else (0.0, eps)
        u, rms, *v = divide_by_rms(
            g, v_row, v_col, v, axes(g.shape), share, added, floor
        )
        if clipping_threshold is not None:
            u = u * (1 / excess(rms, clipping_threshold))
        return u, *v

    def unfactored(shape):
        return () if axes(shape) is None else None

    return leafwise(
        rule,
        scalars,
        ScaleByFactoredRmsState,
        v_row=zeros(real=True, over=over(0), divides=True),
        v_col=zeros(real=True, over=over(1), divides=True),
        v=zeros(real=True, over=unfactored, divides=True),
    )


def two_axes(
    shape: tuple[int, ...], least: int, which: FactoredAxes, factored: bool = True
) -> tuple[int, int] | None:
    """Return the axes that rows and columns average over; None if not factored."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape, kind="stable")
    smaller, larger = order[-2:].tolist() if which == "largest" else (-2, -1)
    return (larger, smaller) if min(shape[larger], shape[smaller]) >= least else None


def divide_by_rms(
    g: jax.Array,
    v_row: Any,
    v_col: Any,
    v: Any,
    axes: tuple[int, int] | None,
    share: Any,
    added: Any,
    floor: Any = None,
) -> tuple[jax.Array, jax.Array, Any, Any, Any]:
    """Update the averages by one step, and divide the gradient by their root.

    The squares are recomputed for every sum, and the update for its norm and for the
    result: XLA fuses a cheap expression into its only use, so no intermediate array of
    the gradient's size is written. An (m, n) gradient is read three times; on CPU,
    where a loop reduces along one axis only, four times.

    Args:
      g: The gradient.
      v_row: Mean squares along the first of the axes, if factored.
      v_col: Mean squares along the second, if factored.
      v: Mean squares of the elements, if not factored.
      axes: The result of `two_axes`.
      share: Weight of the new squares in the averages, in [0, 1].
      added: Added to the squares.
      floor: Lower bound on mean(R) and on the divisor; None means no bound.

    Returns:
      The update, its root mean square, and the new ``v_row``, ``v_col``, ``v``.
    """
    finfo = jnp.finfo(g.dtype)

    def averaged(old, squares, largest):
        # The square of a huge gradient is inf, which would make its update zero; a
        # finite bound keeps the direction.
        return (1 - share) * old + share * (jnp.minimum(squares, largest) + added)

    def mean(x, axis):
        return jnp.mean(x, axis, keepdims=True)

    if axes is None:
        v = averaged(v, abs_sq(g), finfo.max)
        floor = float(finfo.tiny) if floor is None else floor
        u = ratio(g, jnp.maximum(jnp.sqrt(v), floor), added, floor)
        return u, jnp.sqrt(jnp.sum(abs_sq(u)) / max(g.size, 1)), v_row, v_col, v
    along_row, along_col = axes
    # Divided by g.size, so that the mean over v_row does not overflow either.
    v_row = averaged(v_row, mean(abs_sq(g), along_row), finfo.max / g.size)
    squares = abs_sq(read_apart(g))
    v_col = averaged(v_col, mean(squares, along_col), finfo.max / g.size)
    whole = mean(v_row, along_col)
    if floor is None:
        # Factor by factor: a product of two mean squares as small as eps underflows.
        row = ratio(1, jnp.sqrt(v_row), added)
        col = ratio(jnp.sqrt(whole), jnp.sqrt(v_col), added)
        u = (g * row) * col
        # The mean square of u, from column means that the pass over g for v_col can
        # give as well.
        again, row, col = read_apart((g, row, col))
        in_columns = mean(abs_sq(again * row), along_col)
        mean_square = jnp.mean((in_columns * col) * col)
    else:
        limit = jnp.asarray(1 / floor)
        has_limit = limit < jnp.inf

        def part(x, squares):
            # With a floor of zero, rows and columns of zeros stay zeros.
            return jnp.where(has_limit | (squares > 0), x / jnp.sqrt(squares), 0)

        def divided(g, row, col, limit):
            return g * jnp.minimum(row * col, limit)

        of_rows = jnp.sqrt(jnp.maximum(whole, floor))
        parts = part(1, v_row), part(of_rows, v_col), jnp.minimum(limit, finfo.max)
        u = divided(g, *parts)
        mean_square = jnp.mean(abs_sq(divided(*read_apart((g, *parts)))))
    return u, jnp.sqrt(mean_square), v_row, v_col, v
