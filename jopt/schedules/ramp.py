"""The way from one value to another, measured in whole steps.

float32 holds whole numbers up to 2^24 only, and long runs have more steps. So a step
stays an integer through every comparison, difference, quotient and remainder, and what
is rounded is a share of the way, which is precise again where it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.tree import scalar_dtype


Function = Callable[[jax.Array], Any]
# What is left and what is gone of the way; or the weights of its two values.
Shares = tuple[jax.Array, jax.Array]
Shape = Callable[[jax.Array, jax.Array], Shares]


# Whole steps.


def whole_steps(count: jax.Array) -> jax.Array:
    """The step in the widest integers; what is before step 0 counts as step 0."""
    wide = jnp.uint64 if scalar_dtype() == jnp.float64 else jnp.uint32
    return jnp.maximum(count, 0).astype(wide)


def largest(steps: jax.Array) -> int:
    """The last step that can be counted."""
    return int(jnp.iinfo(steps.dtype).max)


def _constant(value: int, steps: jax.Array) -> np.ndarray:
    return np.asarray(min(value, largest(steps)), steps.dtype)


def since(count: jax.Array, begin: int = 0) -> jax.Array:
    """``max(count - begin, 0)``."""
    steps = whole_steps(count)
    return steps - jnp.minimum(steps, _constant(begin, steps))


def periods(steps: jax.Array, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How many periods are over, the steps since then, and (a float) until the next."""
    near = _constant(length, steps)
    far = length - int(near)  # more than 0 if not even the first period can end
    over, into = (
        (jnp.zeros_like(steps), steps) if far else (steps // near, steps % near)
    )
    return over, into, to_float(near - into) + float(far)


def passed(steps: jax.Array, boundaries: Sequence[int], side: str) -> jax.Array:
    """How many boundaries are <= (side "right") or < (side "left") the step."""
    near = [b for b in boundaries if b <= largest(steps)]
    return jnp.searchsorted(
        np.array(near, steps.dtype), steps, side=side, method="compare_all"
    )


def to_float(steps: jax.Array | np.ndarray) -> jax.Array:
    """Whole steps in the dtype of scalars."""
    return jnp.asarray(steps, scalar_dtype())


def shares(count: jax.Array, start: float, end: float) -> Shares:
    """What is left and what is gone of the way from step ``start`` to step ``end``.

    They add up to 1, but each is counted from its own end: 1 minus a rounded number
    near 1 would be all error. ``start`` and ``end`` may lie between two steps, but then
    only the steps between them may be asked for.
    """
    steps, length = whole_steps(count), end - start
    first = _constant(max(math.ceil(start), 0), steps)
    last = _constant(math.floor(end), steps)
    steps = jnp.clip(steps, first, last)
    # Parts of a step, and the steps that are too far away to be counted.
    before, behind = max(int(first) - start, 0), min(end - int(last), length)
    left = (to_float(last - steps) + float(behind)) / float(length)
    gone = (to_float(steps - first) + float(before)) / float(length)
    return left, gone


# Shapes: the weights of both values, from the shares of the way.


def linear(left: jax.Array, gone: jax.Array) -> Shares:
    """``left``."""
    return left, gone


def polynomial(exponent: float) -> Shape:
    """``left^exponent``."""

    def shape(left, gone):
        # The second weight is 1 - left^exponent, precise also while almost all is left.
        log_left = jnp.where(gone < 0.5, jnp.log1p(-gone), jnp.log(left))
        return left**exponent, -jnp.expm1(exponent * log_left)

    return linear if exponent == 1 else shape


def half_cosine(left: jax.Array, gone: jax.Array) -> Shares:
    """``(1 + cos(pi gone)) / 2``, as ``sin(pi left / 2)^2``, which does not cancel."""
    smaller = jnp.sin(math.pi / 2 * jnp.minimum(left, gone)) ** 2
    ends = left < gone
    return jnp.where(ends, smaller, 1 - smaller), jnp.where(ends, 1 - smaller, smaller)


def cosine(exponent: float) -> Shape:
    """The half cosine to a power."""

    def shape(left, gone):
        weight = half_cosine(left, gone)[0] ** exponent
        return weight, 1 - weight

    return half_cosine if exponent == 1 else shape


def one_minus_sqrt(left: jax.Array, gone: jax.Array) -> Shares:
    """``1 - sqrt(gone)``, without its cancellation."""
    root = jnp.sqrt(gone)
    return left / (1 + root), root


def one_minus_square(left: jax.Array, gone: jax.Array) -> Shares:
    """``1 - gone^2``, without its cancellation."""
    return left * (1 + gone), gone**2


def rational(left: jax.Array, gone: jax.Array) -> Shares:
    """``left / (1 - gone / 2)``."""
    return 2 * left / (1 + left), gone / (1 + left)


# Functions of the step.


def constant(value: float) -> Function:
    """The same value at every step."""
    return lambda count: jnp.full(jnp.shape(count), value, scalar_dtype())


def ramp(
    init_value: float,
    end_value: float,
    start: float,
    end: float,
    shape: Shape = linear,
) -> Function:
    """From one value at step ``start`` to another at step ``end``, constant outside."""

    def function(count):
        weights = shape(*shares(count, start, end))
        return init_value * weights[0] + end_value * weights[1]

    return function


def pieces(functions: Sequence[Function], boundaries: Sequence[int]) -> Function:
    """The first function, and from each boundary on the next one."""

    def function(count):
        steps = whole_steps(count)
        value = jnp.asarray(functions[0](count), scalar_dtype())
        for boundary, following in zip(boundaries, functions[1:], strict=True):
            if boundary <= largest(steps):
                later = jnp.asarray(following(count), scalar_dtype())
                value = jnp.where(steps >= _constant(boundary, steps), later, value)
        return value

    return function


def path(points: Sequence[tuple[float, float]], shape: Shape = linear) -> Function:
    """Through ``(step, value)`` points; a way that takes no steps is left out."""
    ways = [(a, b) for a, b in pairwise(points) if b[0] > a[0]]
    if not ways:
        return constant(points[-1][1])
    functions = [ramp(a[1], b[1], a[0], b[0], shape) for a, b in ways]
    return pieces(functions, [math.ceil(a[0]) for a, _ in ways[1:]])


def power(base: float, exponent: jax.Array) -> jax.Array:
    """``base^exponent`` for a Python number.

    Rounding the base to float32 moves it by up to 6e-8, and its power by ``exponent``
    times as much; a second factor takes that back.
    """
    rounded = float(np.asarray(base, scalar_dtype()))
    if rounded in (0, base):
        return rounded**exponent
    correction = math.log1p((base - rounded) / rounded)
    return rounded**exponent * jnp.exp(exponent * correction)
