"""The loop of a quasi-Newton method: steps along directions, by a line search.

Each pass of the loop evaluates the function once, at the step that the line search asks
for. Where the search has ended, the same pass remembers the step and finds the next
direction. So the loop contains the function once, which is most of what it costs to
compile, and no evaluation is made twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jopt.gradients import line_search
from jopt.solvers.results import MinimizeResult, Status, first_status
from jopt.tree.packing import packed, unpacked


class Directions(NamedTuple):
    """How a method finds its directions, from steps and changes of the gradient."""

    size: int  # the number of steps that are remembered
    # start(x) -> memory, which is empty
    start: Callable[[jax.Array], Any]
    # next(memory, x, grad, step, change, slot, age, keep, forget) -> (memory,
    # direction). If keep is true, step and change are remembered in this slot, with a
    # greater age than all before; if forget is, all before are forgotten.
    next: Callable[..., tuple[Any, jax.Array]]


class Numbers(NamedTuple):
    """The scalars of a run."""

    value: jax.Array  # at the best point so far
    search: Any  # the state of the line search
    slot: jax.Array  # int32, where the next step is remembered
    remembered: jax.Array  # int32, how many were, since the memory was empty
    iterations: jax.Array  # int32, searches that have ended
    evaluations: jax.Array  # int32
    status: jax.Array  # int32


class Descent(NamedTuple):
    """Where a run is."""

    x: jax.Array  # the best point so far, where the search starts
    grad: jax.Array
    aux: Any
    direction: jax.Array
    memory: Any  # of the method
    numbers: jax.Array  # `Numbers`, packed


class Tests(NamedTuple):
    """When to stop."""

    gtol: Any
    ftol: Any
    max_iterations: Any


# The numbers of L-BFGS-B.
DECREASE, FLATTER = 1e-3, 0.9  # what makes a step good, by value and slope
LONGEST = 1e10  # step of a search
EVALUATIONS = 20  # of a search


def start(aux: Any, directions: Directions, x: jax.Array) -> Descent:
    """Where a run begins: its first evaluation, at x, is that of the first pass.

    Args:
      aux: The shapes of what the function returns beside its value.
      directions: The method.
      x: The point.
    """
    zero = jnp.zeros_like(x)
    aux = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), aux)
    return Descent(x, zero, aux, zero, directions.start(x), packed(_first(x.dtype)))


@functools.cache
def _like(dtype: Any) -> Numbers:
    """The shapes of the numbers."""
    return jax.eval_shape(lambda: _first(dtype))


def _first(dtype: Any) -> Numbers:
    zero = jnp.zeros((), jnp.int32)
    infinity = jnp.full((), jnp.inf, dtype)
    search = _search(LONGEST).start(infinity, -infinity, 0.0)
    return Numbers(infinity, search._replace(status=zero), *[zero] * 5)


def advance(
    evaluate: Callable[..., Any],
    directions: Directions,
    box: tuple[jax.Array, jax.Array] | None,
    tests: Tests,
    s: Descent,
) -> Descent:
    """One pass: evaluate the function once, and what follows from that."""
    like = _like(s.x.dtype)
    old = unpacked(s.numbers, like)
    first = old.evaluations == 0  # it goes nowhere, to evaluate the function at x0
    trial = s.x + old.search.step * s.direction
    if box is not None:
        trial = jnp.clip(trial, *box)
    (value, aux), grad = evaluate(trial)
    slope = jnp.vdot(grad, s.direction)
    # Most steps are good at once. Besides, what is in a conditional is computed in one
    # place: XLA would repeat it wherever a part of it is used.
    good = value <= old.search.value + DECREASE * old.search.step * old.search.slope
    good &= jnp.abs(slope) <= FLATTER * jnp.abs(old.search.slope)
    decided = lax.cond(
        first | good,
        functools.partial(_decided, like, directions, tests, True),
        functools.partial(_decided, like, directions, tests, False),
        s.numbers,
        jnp.stack([value, slope]),
    )
    flag = jax.ShapeDtypeStruct((), bool)
    now, taken, failed, keep = unpacked(decided, (like, flag, flag, flag))

    move, change = trial - s.x, grad - s.grad
    x = jnp.where(taken, trial, s.x)
    grad = jnp.where(taken, grad, s.grad)
    aux = jax.tree.map(lambda a, b: jnp.where(taken, a, b), aux, s.aux)
    memory, direction = directions.next(
        s.memory, x, grad, move, change, old.slot, now.iterations, keep, failed
    )
    slope = jnp.vdot(grad, direction)
    length, longest = jnp.ones((), x.dtype), jnp.full((), LONGEST, x.dtype)
    pull = grad
    if box is None:
        # Without memory the direction is -g.
        length = jnp.where(now.remembered == 0, jnp.minimum(1, 1 / jnp.sqrt(-slope)), 1)
    else:
        pull = jnp.clip(x - grad, *box) - x
        longest = jnp.where(now.iterations == 0, 1, _room(x, direction, *box))
    search = _search(longest).start(now.value, slope, length)
    ended = taken | failed
    steepest = jnp.max(jnp.abs(pull))
    status = jnp.where(taken & (steepest <= tests.gtol), int(Status.GTOL), now.status)
    bad = (now.evaluations == 1) & ~jnp.isfinite(steepest)
    status = jnp.where(bad, int(Status.NOT_FINITE), status).astype(jnp.int32)
    now = now._replace(
        search=line_search.where(ended, search, now.search), status=status
    )
    direction = jnp.where(ended, direction, s.direction)
    return Descent(x, grad, aux, direction, memory, packed(now))


def _decided(
    like: Numbers,
    directions: Directions,
    tests: Tests,
    good: bool,
    before: jax.Array,
    evaluated: jax.Array,
) -> jax.Array:
    """What follows from an evaluation: the numbers, and what to keep of it, packed.

    Args:
      like: The shapes of the numbers.
      directions: The method.
      tests: When to stop.
      good: Whether the step is good, or the first one. Else the line search decides.
      before: The numbers, packed.
      evaluated: The value and the slope at the step.
    """
    old = unpacked(before, like)
    value, slope = evaluated[0], evaluated[1]
    first = old.evaluations == 0
    if good:
        search = old.search
        taken, failed = jnp.ones((), bool), jnp.zeros((), bool)
    else:
        search = _search(LONGEST).advance(old.search, value, slope)
        # A direction that does not go downhill is a search that has failed, too. So is
        # a search that ends with its evaluations, or its room, and no lower value.
        failed = search.status == line_search.FAILED
        failed |= old.search.status == line_search.FAILED
        idle = search.status == line_search.TOO_MANY
        idle |= search.status == line_search.TOO_NARROW
        failed |= idle & ~(value < old.value)
        taken = ~failed & (search.status != line_search.SEARCHING)
    # A change of the slope that is nothing but rounding is not remembered.
    eps = float(jnp.finfo(value.dtype).eps)
    keep = taken & ~first & (slope - old.search.slope > -eps * old.search.slope)
    remembered = jnp.where(failed, 0, old.remembered + keep.astype(jnp.int32))
    size = jnp.maximum(jnp.maximum(jnp.abs(old.value), jnp.abs(value)), 1)
    iterations = old.iterations + (taken & ~first).astype(jnp.int32)
    status = first_status(
        {
            Status.NOT_FINITE: first & ~jnp.isfinite(value),
            Status.FTOL: taken & ~first & (old.value - value <= tests.ftol * size),
            Status.STUCK: failed & (old.remembered == 0),
            Status.ITERATIONS: taken & (iterations >= tests.max_iterations),
        }
    )
    following = jnp.where(old.slot + 1 < directions.size, old.slot + 1, 0)
    now = Numbers(
        value=jnp.where(taken, value, old.value),
        search=search,
        slot=jnp.where(keep, following, old.slot),
        remembered=remembered,
        iterations=iterations,
        evaluations=old.evaluations + 1,
        status=status,
    )
    return packed((now, taken, failed, keep))


def run(one: Callable[[Descent], Descent], s: Descent) -> Descent:
    """Go on until there is a reason to stop."""
    return lax.while_loop(lambda s: numbers(s).status == Status.RUNNING, one, s)


def iterate(one: Callable[[Descent], Descent], s: Descent) -> Descent:
    """Go on until the search in progress has ended."""
    before = numbers(s).iterations

    def goes_on(s):
        now = numbers(s)
        return (now.status == Status.RUNNING) & (now.iterations <= before)

    return lax.while_loop(goes_on, one, s)


def numbers(s: Descent) -> Numbers:
    return unpacked(s.numbers, _like(s.x.dtype))


def result(s: Descent) -> MinimizeResult:
    now = numbers(s)
    return MinimizeResult(
        params=s.x,
        value=now.value,
        grad=s.grad,
        converged=now.status > 0,
        status=now.status,
        iterations=now.iterations,
        evaluations=now.evaluations,
        aux=s.aux,
    )


def _search(longest: Any) -> line_search.LineSearch:
    return line_search.strong_wolfe(
        DECREASE, FLATTER, max_step=longest, max_evaluations=EVALUATIONS
    )


def _room(
    x: jax.Array, direction: jax.Array, lower: jax.Array, upper: jax.Array
) -> jax.Array:
    """The longest step that stays in the box."""
    ahead = jnp.where(direction > 0, upper - x, lower - x)
    steps = jnp.where(direction == 0, LONGEST, ahead / direction)
    return jnp.clip(jnp.min(steps), 0, LONGEST)
