"""The loop of a quasi-Newton method: steps along directions, by a line search.

Each pass of the loop evaluates the function once, at the step that the line search asks
for. Where the search has ended, the same pass remembers the step and finds the next
direction. So the loop contains the function once, which is most of what it costs to
compile, and no evaluation is made twice.
"""

from __future__ import annotations

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

    # start(x) -> memory, which is empty
    start: Callable[[jax.Array], Any]
    # next(memory, x, grad, step, change, count, keep, forget) -> (memory, direction).
    # If keep is true, step and change are remembered, as number `count` of all; if
    # forget is, all before are forgotten.
    next: Callable[..., tuple[Any, jax.Array]]


class Numbers(NamedTuple):
    """The scalars of a run."""

    value: jax.Array  # at the best point so far
    search: Any  # the state of the line search
    count: jax.Array  # int32, steps that were remembered, since the first
    remembered: jax.Array  # int32, and since the memory was empty
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
LONGEST = 1e10  # step of a search
EVALUATIONS = 20  # of a search


def start(
    evaluate: Callable[..., Any], directions: Directions, x: jax.Array
) -> Descent:
    """Where a run begins: its first evaluation, at x, is that of the first pass."""
    (_, aux), grad = jax.eval_shape(evaluate, x)
    grad, aux = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (grad, aux))
    return Descent(x, grad, aux, grad, directions.start(x), packed(_first(x)))


def _first(x: jax.Array) -> Numbers:
    zero = jnp.zeros((), jnp.int32)
    infinity = jnp.full((), jnp.inf, x.dtype)
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
    like = jax.eval_shape(_first, s.x)
    old = unpacked(s.numbers, like)
    first = old.evaluations == 0  # it goes nowhere, to evaluate the function at x0
    trial = s.x + old.search.step * s.direction
    if box is not None:
        trial = jnp.clip(trial, *box)
    (value, aux), grad = evaluate(trial)
    slope = jnp.vdot(grad, s.direction)

    def advanced():
        return packed(_search(LONGEST).advance(old.search, value, slope))

    # A conditional, because XLA would repeat all of this wherever a part is used.
    search = lax.cond(first, lambda: packed(old.search), advanced)
    search = unpacked(search, old.search)
    # A direction that does not go downhill is a search that has failed, too.
    failed = (search.status == line_search.FAILED) | (
        old.search.status == line_search.FAILED
    )
    # So is one that ends with its evaluations, or its room, and no lower value.
    idle = (search.status == line_search.TOO_MANY) | (
        search.status == line_search.TOO_NARROW
    )
    failed = ~first & (failed | idle & ~(value < old.value))
    taken = first | ~failed & (search.status != line_search.SEARCHING)
    # A change of the slope that is nothing but rounding is not remembered.
    eps = float(jnp.finfo(s.x.dtype).eps)
    keep = taken & ~first & (slope - old.search.slope > -eps * old.search.slope)
    remembered = jnp.where(failed, 0, old.remembered + keep.astype(jnp.int32))
    reduction = old.value - value
    size = jnp.maximum(jnp.maximum(jnp.abs(old.value), jnp.abs(value)), 1)
    iterations = old.iterations + (taken & ~first).astype(jnp.int32)
    status = first_status(
        {
            Status.NOT_FINITE: first & ~jnp.isfinite(value),
            Status.FTOL: taken & ~first & (reduction <= tests.ftol * size),
            Status.STUCK: failed & (old.remembered == 0),
            Status.ITERATIONS: taken & (iterations >= tests.max_iterations),
        }
    )
    now = Numbers(
        value=jnp.where(taken, value, old.value),
        search=search,
        count=old.count + keep.astype(jnp.int32),
        remembered=remembered,
        iterations=iterations,
        evaluations=old.evaluations + 1,
        status=status,
    )
    move, change = trial - s.x, grad - s.grad
    x = jnp.where(taken, trial, s.x)
    grad = jnp.where(taken, grad, s.grad)
    aux = jax.tree.map(lambda a, b: jnp.where(taken, a, b), aux, s.aux)
    memory, direction = directions.next(
        s.memory, x, grad, move, change, old.count, keep, failed
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
    now = now._replace(search=_where(ended, search, now.search), status=status)
    direction = jnp.where(ended, direction, s.direction)
    return Descent(x, grad, aux, direction, memory, packed(now))


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
    return unpacked(s.numbers, jax.eval_shape(_first, s.x))


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
    return line_search.strong_wolfe(max_step=longest, max_evaluations=EVALUATIONS)


def _room(
    x: jax.Array, direction: jax.Array, lower: jax.Array, upper: jax.Array
) -> jax.Array:
    """The longest step that stays in the box."""
    ahead = jnp.where(direction > 0, upper - x, lower - x)
    steps = jnp.where(direction == 0, LONGEST, ahead / direction)
    return jnp.clip(jnp.min(steps), 0, LONGEST)


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(
        lambda a, b: a if a is b else jnp.where(condition, a, b), new, old
    )
