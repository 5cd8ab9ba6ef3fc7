"""The way from one value to another, measured in whole steps.

float32 holds whole numbers up to 2^24 only, and long runs have more steps. So a step
stays an integer through every comparison, difference, quotient and remainder, and what is
rounded is a share of the way, which is precise again where it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.tree import scalar_dtype


# What is left and what is gone of the way, then the weights of its two values.
Weights = tuple[jax.Array, jax.Array]
Shape = Callable[[jax.Array, jax.Array], Weights]
Function = Callable[[jax.Array], Any]


def whole_steps(count: jax.Array) -> jax.Array:
    """The step in the widest integers; before step 0 it is 0, so they are unsigned."""
    wide = jnp.uint64 if jax.config.jax_enable_x64 else jnp.uint32
    return jnp.maximum(count, 0).astype(wide)


def largest(steps: jax.Array) -> int:
    """The last step that can be counted."""
    return int(jnp.iinfo(steps.dtype).max)


def to_float(steps: jax.Array) -> jax.Array:
    """Whole steps in the dtype of scalars."""
    return steps.astype(scalar_dtype())


def since(count: jax.Array, begin: int = 0) -> jax.Array:
    """``max(count - begin, 0)``."""
    steps = whole_steps(count)
    return steps - jnp.minimum(steps, _constant(begin, steps))


def periods(steps: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """How many periods are over, and the steps since the last one ended."""
    if length > largest(steps):
        return jnp.zeros_like(steps), steps
    return steps // _constant(length, steps), steps % _constant(length, steps)


def passed(steps: jax.Array, boundaries: Sequence[int], side: str) -> jax.Array:
    """How many boundaries are <= (side "right") or < (side "left") the step."""
    reached = [b for b in boundaries if b <= largest(steps)]
    return jnp.searchsorted(
        np.array(reached, steps.dtype), steps, side=side, method="compare_all"
    )


def _constant(value: int, steps: jax.Array) -> np.ndarray:
    return np.asarray(min(value, largest(steps)), steps.dtype)


def shares(count: jax.Array, start: float, end: float) -> Weights:
    """What is left and what is gone of the way from step ``start`` to step ``end``.

    They add up to 1, but each is counted from its own end: the difference to 1 of a
    rounded number near 1 would have lost the small one. ``start`` and ``end`` may lie
    between two steps, but then only steps that lie between them may be asked for.
    """
    steps, length = whole_steps(count), end - start
    first = _constant(max(math.ceil(start), 0), steps)
    last = _constant(math.floor(end), steps)
    steps = jnp.clip(steps, first, last)
    # Parts of a step; and the part of the way that lies behind the last countable step.
    before, behind = max(int(first) - start, 0), min(end - int(last), length)
    left = (to_float(last - steps) + float(behind)) / float(length)
    gone = (to_float(steps - first) + float(before)) / float(length)
    return left, gone


def linear(left: jax.Array, gone: jax.Array) -> Weights:
    """A straight line."""
    return left, gone


def polynomial(power: float, left: jax.Array, gone: jax.Array) -> Weights:
    """``left^power``."""
    if power == 1:
        return left, gone
    # 1 - left^power, without the cancellation while almost all is left.
    log_left = jnp.where(gone < 0.5, jnp.log1p(-gone), jnp.log(left))
    return left**power, -jnp.expm1(power * log_left)


def half_cosine(left: jax.Array, gone: jax.Array) -> Weights:
    """``(1 + cos(pi gone)) / 2``, as a square: exactly 1 and 0 at the ends."""
    return jnp.sin(math.pi / 2 * left) ** 2, jnp.sin(math.pi / 2 * gone) ** 2


def one_minus_sqrt(left: jax.Array, gone: jax.Array) -> Weights:
    """``1 - sqrt(gone)``, without its cancellation."""
    root = jnp.sqrt(gone)
    return left / (1 + root), root


def powered_cosine(exponent: float) -> Shape:
    """A half cosine to a power."""
    if exponent == 1:
        return half_cosine

    def shape(left: jax.Array, gone: jax.Array) -> Weights:
        weight = half_cosine(left, gone)[0] ** exponent
        return weight, 1 - weight

    return shape


def ramp(
    init_value: float,
    end_value: float,
    start: float,
    end: float,
    shape: Shape = linear,
) -> Function:
    """From one value at step ``start`` to another at step ``end``, constant outside."""

    def function(count: jax.Array) -> jax.Array:
        weights = shape(*shares(count, start, end))
        return init_value * weights[0] + end_value * weights[1]

    return function


def pieces(functions: Sequence[Function], boundaries: Sequence[int]) -> Function:
    """The first function, and from each boundary on the next one."""

    def function(count: jax.Array) -> jax.Array:
        steps = whole_steps(count)
        value = jnp.asarray(functions[0](count), scalar_dtype())
        for boundary, later in zip(boundaries, functions[1:], strict=True):
            if boundary <= largest(steps):
                now = steps >= _constant(boundary, steps)
                value = jnp.where(now, jnp.asarray(later(count), scalar_dtype()), value)
        return value

    return function


def path(points: Sequence[tuple[float, float]], shape: Shape = linear) -> Function:
    """Through ``(step, value)`` points; ways of no length, or before step 0, are left out."""
    ways = [(a, b) for a, b in pairwise(points) if b[0] > a[0] and b[0] >= 0]
    if not ways:
        return constant(points[-1][1])
    functions = [ramp(a[1], b[1], a[0], b[0], shape) for a, b in ways]
    return pieces(functions, [math.ceil(a[0]) for a, _ in ways[1:]])


def constant(value: float) -> Function:
    """The same value at every step."""
    return lambda count: jnp.full(jnp.shape(count), value, scalar_dtype())


def power(base: float, exponent: jax.Array) -> jax.Array:
    """``base^exponent`` for a Python number.

    A float32 base is off by up to 6e-8, and its power by ``exponent`` times as much: a
    second factor takes that back.
    """
    rounded = float(np.asarray(base, scalar_dtype()))
    if rounded in (0, base):
        return rounded**exponent
    correction = math.log1p((base - rounded) / rounded)
    return rounded**exponent * jnp.exp(exponent * correction)


polynomial_shape = partial(partial, polynomial)
