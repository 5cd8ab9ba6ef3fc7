"""Ramps from one value to another, measured in whole steps.

float32 holds whole numbers only up to 2^24, and long runs have more steps. So a step
stays an integer through every comparison, difference, quotient and remainder. Only the
shares of a ramp are rounded, and a small share keeps its relative precision. A step
that comes as a float, such as an epoch and its fraction, stays a float.
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
from jopt.values import arguments


Function = Callable[[jax.Array], Any]
# The remaining and the elapsed share of a ramp; or the weights of its two values.
Shares = tuple[jax.Array, jax.Array]
Shape = Callable[[jax.Array, jax.Array], Shares]


# Whole steps.


def whole_steps(count: jax.Array) -> jax.Array:
    """Return the step as the widest unsigned integer; before step 0 it is 0."""
    wide = jnp.uint64 if scalar_dtype() == jnp.float64 else jnp.uint32
    return jnp.maximum(count, 0).astype(wide)


def nonnegative(count: jax.Array) -> jax.Array:
    """Return the step as `whole_steps` does, or as a float if it is one."""
    if is_float(count):
        return jnp.maximum(count, 0).astype(scalar_dtype())
    return whole_steps(count)


def is_float(count: jax.Array) -> bool:
    """Return whether a step may lie between two whole ones."""
    return bool(jnp.issubdtype(count.dtype, jnp.floating))


def largest(steps: jax.Array) -> int:
    """Return the last step that the dtype, or an integer of its size, can count."""
    return int(np.iinfo(f"uint{8 * steps.dtype.itemsize}").max)


def _constant(value: float, steps: jax.Array) -> np.ndarray:
    # A Python number beyond the dtype's range would be an error.
    return np.asarray(min(value, largest(steps)), steps.dtype)


def since(count: jax.Array, begin: int = 0) -> jax.Array:
    """Return ``max(count - begin, 0)``."""
    steps = nonnegative(count)
    # The minimum comes first: an unsigned difference would wrap around below zero.
    return steps - jnp.minimum(steps, _constant(begin, steps))


def periods(steps: jax.Array, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the periods completed, the steps since then, and (a float) to the next."""
    countable = _constant(length, steps)
    # Above 0 if not even the first period can end.
    excess = length - min(length, largest(steps))
    completed, offset = (
        (jnp.zeros_like(steps), steps)
        if excess
        else (steps // countable, steps % countable)
    )
    return completed, offset, to_float(countable - offset) + float(excess)


def count_passed(steps: jax.Array, boundaries: Sequence[int], side: str) -> jax.Array:
    """Return how many boundaries are <= (side "right") or < (side "left") the step."""
    reachable = [b for b in boundaries if b <= largest(steps)]
    return jnp.searchsorted(
        np.array(reachable, steps.dtype), steps, side=side, method="compare_all"
    )


def to_float(steps: jax.Array | np.ndarray) -> jax.Array:
    """Return whole steps in the dtype of scalars."""
    return jnp.asarray(steps, scalar_dtype())


def shares(count: jax.Array, start: float, end: float) -> Shares:
    """Return the remaining and the elapsed share of the ramp from ``start`` to ``end``.

    The shares add up to 1, but each is counted from its own end: 1 minus a rounded
    number near 1 would be all error. ``start`` and ``end`` may lie between two steps;
    the result then holds only for the steps between them.
    """
    steps, length = nonnegative(count), end - start
    if is_float(steps):
        elapsed = jnp.clip(steps - float(start), 0.0, float(length))
        return (float(length) - elapsed) / float(length), elapsed / float(length)
    first = _constant(max(math.ceil(start), 0), steps)
    last = _constant(math.floor(end), steps)
    steps = jnp.clip(steps, first, last)
    # Fractions of a step, and the steps beyond the range of the counter.
    before, behind = max(int(first) - start, 0), min(end - int(last), length)
    remaining = (to_float(last - steps) + float(behind)) / float(length)
    elapsed = (to_float(steps - first) + float(before)) / float(length)
    return remaining, elapsed


# Shapes: the weights of the first and the last value, from the two shares. Most compute
# both weights directly: 1 minus a weight near 1 would lose digits.


def linear(remaining: jax.Array, elapsed: jax.Array) -> Shares:
    """Return weights with the first equal to ``remaining``."""
    return remaining, elapsed


def polynomial(exponent: float) -> Shape:
    """Return the shape ``remaining^exponent``."""

    def shape(remaining, elapsed):
        # The second weight is 1 - remaining^exponent, precise also near the start.
        log = jnp.where(elapsed < 0.5, jnp.log1p(-elapsed), jnp.log(remaining))
        return remaining**exponent, -jnp.expm1(exponent * log)

    return linear if arguments.known(exponent) == 1 else shape


def half_cosine(remaining: jax.Array, elapsed: jax.Array) -> Shares:
    """Return weights of a half cosine: ``(1 + cos(pi elapsed)) / 2``.

    Computed as ``sin(pi remaining / 2)^2``, which does not cancel.
    """
    smaller = jnp.sin(math.pi / 2 * jnp.minimum(remaining, elapsed)) ** 2
    falling = remaining < elapsed
    larger = 1 - smaller
    return jnp.where(falling, smaller, larger), jnp.where(falling, larger, smaller)


def cosine(exponent: float) -> Shape:
    """Return the shape of a half cosine to a power."""

    def shape(remaining, elapsed):
        weight = half_cosine(remaining, elapsed)[0] ** exponent
        return weight, 1 - weight

    return half_cosine if arguments.known(exponent) == 1 else shape


def one_minus_sqrt(remaining: jax.Array, elapsed: jax.Array) -> Shares:
    """Return weights with the first ``1 - sqrt(elapsed)``, without cancellation."""
    root = jnp.sqrt(elapsed)
    return remaining / (1 + root), root


def one_minus_square(remaining: jax.Array, elapsed: jax.Array) -> Shares:
    """Return weights with the first ``1 - elapsed^2``, without cancellation."""
    return remaining * (1 + elapsed), elapsed**2


def rational(remaining: jax.Array, elapsed: jax.Array) -> Shares:
    """Return weights with the first ``remaining / (1 - elapsed / 2)``."""
    return 2 * remaining / (1 + remaining), elapsed / (1 + remaining)


# Functions of the step.


def constant(value: float) -> Function:
    """Return a function with the same value at every step."""
    return lambda count: jnp.full(jnp.shape(count), value, scalar_dtype())


def ramp(
    init_value: float,
    end_value: float,
    start: float,
    end: float,
    shape: Shape = linear,
) -> Function:
    """Return a ramp between steps ``start`` and ``end``, constant outside."""

    def function(count):
        # A weighted sum, not init + (end - init) x: both ends are exact.
        weights = shape(*shares(count, start, end))
        return init_value * weights[0] + end_value * weights[1]

    return function


def pieces(functions: Sequence[Function], boundaries: Sequence[float]) -> Function:
    """Return the first function, followed by the next one from each boundary on."""

    def function(count):
        steps = nonnegative(count)
        value = jnp.asarray(functions[0](count), scalar_dtype())
        for boundary, following in zip(boundaries, functions[1:], strict=True):
            boundary = boundary if is_float(steps) else math.ceil(boundary)
            if boundary <= largest(steps):
                later = jnp.asarray(following(count), scalar_dtype())
                value = jnp.where(steps >= _constant(boundary, steps), later, value)
        return value

    return function


def path(points: Sequence[tuple[float, float]], shape: Shape = linear) -> Function:
    """Return a path through ``(step, value)`` points, without segments of no steps."""
    segments = [(a, b) for a, b in pairwise(points) if b[0] > a[0]]
    if not segments:
        return constant(points[-1][1])
    functions = [ramp(a[1], b[1], a[0], b[0], shape) for a, b in segments]
    return pieces(functions, [a[0] for a, _ in segments[1:]])


def power(base: float, exponent: jax.Array) -> jax.Array:
    """Return ``base^exponent``.

    Rounding a Python number to float32 changes it by up to 6e-8, and its power by
    ``exponent`` times as much. A second factor corrects that.
    """
    if arguments.known(base) is None:  # traced: it is rounded already
        return base**exponent
    rounded = float(np.asarray(base, scalar_dtype()))
    if rounded in (0, base):
        return rounded**exponent
    correction = math.log1p((base - rounded) / rounded)
    return rounded**exponent * jnp.exp(exponent * correction)
