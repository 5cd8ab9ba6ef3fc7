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


class Directions(NamedTuple):
    """How a method finds its directions, from steps and changes of the gradient."""

    # start(x) -> memory, which is empty
    start: Callable[[jax.Array], Any]
    # next(memory, x, grad, step, change, keep) -> (memory, direction); step and change
    # are remembered if keep is true
    next: Callable[..., tuple[Any, jax.Array]]
    # forget(memory) -> memory that counts as empty
    forget: Callable[[Any], Any]
    # is_empty(memory) -> whether nothing is remembered
    is_empty: Callable[[Any], jax.Array]


class Descent(NamedTuple):
    """Where a run is."""

    x: jax.Array  # the best point so far, where the search starts
    value: jax.Array
    grad: jax.Array
    aux: Any
    direction: jax.Array
    search: Any  # the state of the line search
    memory: Any  # of the method
    iterations: jax.Array  # int32, searches that have ended
    evaluations: jax.Array  # int32
    status: jax.Array  # int32


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
    (value, aux), grad = jax.eval_shape(evaluate, x)
    empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (grad, aux))
    zero = jnp.zeros((), jnp.int32)
    infinity = jnp.full((), jnp.inf, value.dtype)
    search = _search(LONGEST).start(infinity, -infinity, 0.0)
    search = search._replace(status=zero)
    return Descent(
        x, infinity, *empty, empty[0], search, directions.start(x), zero, zero, zero
    )


def advance(
    evaluate: Callable[..., Any],
    directions: Directions,
    box: tuple[jax.Array, jax.Array] | None,
    tests: Tests,
    s: Descent,
) -> Descent:
    """One pass: evaluate the function once, and what follows from that."""
    first = s.evaluations == 0  # it goes nowhere, to evaluate the function at x0
    trial = s.x + s.search.step * s.direction
    if box is not None:
        trial = jnp.clip(trial, *box)
    (value, aux), grad = evaluate(trial)
    search = _search(LONGEST).advance(s.search, value, jnp.vdot(grad, s.direction))
    failed = ~first & (search.status == line_search.FAILED)
    taken = first | ~failed & (search.status != line_search.SEARCHING)

    # What is kept of this pass.
    move, change = trial - s.x, grad - s.grad
    x = jnp.where(taken, trial, s.x)
    kept_grad = jnp.where(taken, grad, s.grad)
    kept_value = jnp.where(taken, value, s.value)
    kept_aux = jax.tree.map(lambda a, b: jnp.where(taken, a, b), aux, s.aux)

    # The next direction. A change of the slope that is rounding is not remembered.
    eps = float(jnp.finfo(x.dtype).eps)
    slope = s.search.slope * s.search.step
    curved = jnp.vdot(move, change) > -eps * slope
    memory = _where(failed, directions.forget(s.memory), s.memory)
    memory, direction = directions.next(
        memory, x, kept_grad, move, change, taken & ~first & curved
    )
    slope = jnp.vdot(kept_grad, direction)
    uphill = ~(slope < 0)
    memory = _where(uphill, directions.forget(memory), memory)
    downhill = -kept_grad
    if box is not None:
        downhill = jnp.clip(x + downhill, *box) - x
    direction = jnp.where(uphill, downhill, direction)
    slope = jnp.where(uphill, jnp.vdot(kept_grad, downhill), slope)

    fresh = directions.is_empty(memory)
    length = jnp.where(fresh, jnp.minimum(1, 1 / jnp.linalg.norm(direction)), 1)
    longest = LONGEST
    if box is not None:
        longest = jnp.where(first, 1, _room(x, direction, *box))
    new_search = _search(longest).start(kept_value, slope, length)
    ended = taken | failed

    pull = kept_grad if box is None else jnp.clip(x - kept_grad, *box) - x
    reduction = s.value - kept_value
    size = jnp.maximum(jnp.maximum(jnp.abs(s.value), jnp.abs(kept_value)), 1)
    iterations = s.iterations + (taken & ~first).astype(jnp.int32)
    status = first_status(
        {
            Status.NOT_FINITE: first & ~jnp.isfinite(value + jnp.sum(grad)),
            Status.GTOL: taken & (jnp.max(jnp.abs(pull)) <= tests.gtol),
            Status.FTOL: taken & ~first & (reduction <= tests.ftol * size),
            Status.STUCK: failed & directions.is_empty(s.memory),
            Status.ITERATIONS: taken & (iterations >= tests.max_iterations),
        }
    )
    return Descent(
        x=x,
        value=kept_value,
        grad=kept_grad,
        aux=kept_aux,
        direction=jnp.where(ended, direction, s.direction),
        search=_where(ended, new_search, search),
        memory=memory,
        iterations=iterations,
        evaluations=s.evaluations + 1,
        status=status,
    )


def run(one: Callable[[Descent], Descent], s: Descent) -> Descent:
    """Go on until there is a reason to stop."""
    return lax.while_loop(lambda s: s.status == Status.RUNNING, one, s)


def iterate(one: Callable[[Descent], Descent], s: Descent) -> Descent:
    """Go on until the search in progress has ended."""

    def goes_on(now):
        return (now.status == Status.RUNNING) & (now.iterations <= s.iterations)

    return lax.while_loop(goes_on, one, s)


def result(s: Descent) -> MinimizeResult:
    return MinimizeResult(
        params=s.x,
        value=s.value,
        grad=s.grad,
        converged=s.status > 0,
        status=s.status,
        iterations=s.iterations,
        evaluations=s.evaluations,
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
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)
