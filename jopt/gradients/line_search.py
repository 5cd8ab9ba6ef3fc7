"""Line searches: how far to go along a direction.

On the line ``phi(t) = f(p + t d)`` with ``phi'(0) < 0``, a step ``t`` is good if

    phi(t) <= phi(0) + ftol t phi'(0)      it decreases enough (Armijo), and
    |phi'(t)| <= gtol |phi'(0)|            the slope has become flat (strong Wolfe)

A search is a pair of pure functions of scalars: ``start(value, slope, step)`` and
``advance(state, value, slope)``. It asks for one evaluation at a time, at
``state.step``, so a loop around it contains the function only once, which is most of
what such a loop costs to compile. It has no branches: under ``jax.vmap`` it costs what
it costs alone.

Moré & Thuente, "Line search algorithms with guaranteed sufficient decrease", 1994;
Hager & Zhang, "A new conjugate gradient method with guaranteed descent and an efficient
line search", 2005, for decreases that are smaller than rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt import tree


# What `status` says.
SEARCHING = 0  # evaluate at `step`, then call advance
CONVERGED = 1  # the last evaluation, at `step`, satisfies the conditions
AT_LIMIT = 2  # the step is the largest or smallest that is allowed
TOO_NARROW = 3  # the bracket is too small to be divided
TOO_MANY = 4  # the evaluations are used up
FAILED = 5  # no step decreases the value; `step` is 0

# Values that differ by less than this, relative to the first, differ by rounding.
ROUNDING_ULPS = 10

Scalar = jax.Array
Number = Any  # a Python number or a scalar, which may be traced


class LineSearch(NamedTuple):
    """A search as two functions; see `strong_wolfe` and `backtracking`."""

    start: Callable[[ArrayLike, ArrayLike, ArrayLike], Any]  # (value, slope, step)
    advance: Callable[[Any, ArrayLike, ArrayLike], Any]  # (state, value, slope)


class End(NamedTuple):
    """One end of a bracket."""

    step: Scalar
    value: Scalar
    slope: Scalar


class WolfeState(NamedTuple):
    """State of `strong_wolfe`. All floats have the dtype of the value."""

    step: Scalar  # where to evaluate next; once the search has ended, its result
    status: Scalar  # int32, one of the constants of this module
    evaluations: Scalar  # int32, evaluations so far, without that at zero
    value: Scalar  # phi(0)
    slope: Scalar  # phi'(0)
    low: End  # the best end of the bracket
    high: End  # the other end
    bracketed: Scalar  # bool, whether there is a minimum between low and high
    early: Scalar  # bool, whether no step has decreased enough yet, at a slope >= 0
    closing: Scalar  # int32, the status after the last evaluation; 0 before it is clear
    limit: Scalar  # largest step; smaller after a value that is not finite
    width: Scalar  # width of the bracket
    width_before: Scalar  # that of one step earlier


def strong_wolfe(
    ftol: Number = 1e-3,
    gtol: Number = 0.9,
    xtol: Number = 0.1,
    *,
    min_step: Number = 0.0,
    max_step: Number = 1e10,
    max_evaluations: Number = 20,
    atol: Number = 0.0,
    noise_rtol: Number | None = None,
    growth: Number = 4.0,
) -> LineSearch:
    """The search of Moré and Thuente, for a step with the strong Wolfe conditions.

    The numbers are those of MINPACK's ``dcsrch``, which L-BFGS-B uses, with three
    additions. A value or slope that is not finite makes the step and all later ones
    shorter. A value that differs from the first by rounding errors counts as a
    sufficient decrease, so that near a minimum only slopes decide. A search that can
    make no progress returns its best step.

    Args:
      ftol: Part of the decrease that the slope at zero promises.
      gtol: Part of the slope at zero that may be left.
      xtol: Relative width of a bracket that is not divided further.
      min_step: Smallest step.
      max_step: Largest step.
      max_evaluations: Number of evaluations after which the best step is taken; one
        more may follow, at that step.
      atol: Absolute tolerance of both conditions.
      noise_rtol: Relative difference of values that may be rounding errors; None means
        ten times the precision of the value's dtype.
      growth: How many times the last increase of the step the next may be, at most.

    Returns:
      A `LineSearch`. When ``advance`` returns a status other than `SEARCHING`, ``step``
      is that of the last evaluation, or 0 if the search `FAILED`.

    >>> search = strong_wolfe()
    >>> phi = lambda t: (t - 3.0) ** 2
    >>> state = search.start(phi(0.0), jax.grad(phi)(0.0), 0.1)
    >>> while state.status == SEARCHING:
    ...     state = search.advance(state, phi(state.step), jax.grad(phi)(state.step))
    >>> float(state.step), int(state.status), int(state.evaluations)
    (0.5, 1, 2)
    """

    def start(value, slope, step):
        value, slope, step = _floats(value, slope, step)
        least, most = _numbers(value.dtype, min_step, max_step)
        zero = jnp.zeros((), value.dtype)
        low = End(zero, value, slope)
        downhill = (slope < 0) & jnp.isfinite(value)
        return WolfeState(
            step=jnp.where(downhill, jnp.clip(step, least, most), 0),
            status=jnp.where(downhill, SEARCHING, FAILED).astype(jnp.int32),
            evaluations=jnp.zeros((), jnp.int32),
            value=value,
            slope=slope,
            low=low,
            high=low,
            bracketed=jnp.zeros((), bool),
            early=jnp.ones((), bool),
            closing=jnp.zeros((), jnp.int32),
            limit=most,
            width=jnp.asarray(jnp.inf, value.dtype),
            width_before=jnp.asarray(jnp.inf, value.dtype),
        )

    def advance(state, value, slope):
        _, value, slope = _floats(state.value, value, slope)
        part, flat, narrowest, least, margin, grow = _numbers(
            value.dtype, ftol, gtol, xtol, min_step, atol, growth
        )
        step, low = state.step, state.low
        evaluations = state.evaluations + 1
        finite = jnp.isfinite(value) & jnp.isfinite(slope)

        promised = part * state.slope
        enough = state.value + step * promised + margin
        near = jnp.abs(value - state.value) <= _noise(state.value, noise_rtol)
        value = jnp.where(near, jnp.minimum(value, enough), value)
        decreased = value <= enough
        converged = decreased & (jnp.abs(slope) <= margin - flat * state.slope)
        at_limit = (step >= state.limit) & decreased & (slope <= promised)
        at_limit |= (step <= least) & ~(decreased & (slope < promised))
        ended = jnp.where(converged, CONVERGED, jnp.where(at_limit, AT_LIMIT, 0))
        ended = jnp.where(finite, ended, 0)
        # The last evaluation was at the best step, which is taken as it is.
        ended = jnp.where((ended == 0) & (state.closing > 0), state.closing, ended)

        # While no step has decreased enough, search for one where the decrease, less
        # what is promised, is least.
        early = state.early & ~(decreased & (slope >= 0))
        tilt = jnp.where(early & (value <= low.value) & ~decreased, promised, 0.0)
        trial = End(step, value, slope)
        next_low, next_high, next_step, bracketed = _divided(
            _tilted(trial, -tilt),
            _tilted(low, -tilt),
            _tilted(state.high, -tilt),
            state.bracketed,
            _reach(state, least, grow),
        )
        next_low, next_high = _tilted(next_low, tilt), _tilted(next_high, tilt)

        # A bracket that does not become smaller by a third in two steps is halved.
        width = jnp.abs(next_high.step - next_low.step)
        middle = next_low.step + 0.5 * (next_high.step - next_low.step)
        slow = bracketed & (width >= 0.66 * state.width_before)
        next_step = jnp.where(slow, middle, next_step)
        next_step = jnp.clip(next_step, least, state.limit)
        left = jnp.minimum(next_low.step, next_high.step)
        right = jnp.maximum(next_low.step, next_high.step)
        outside = (next_step <= left) | (next_step >= right)
        narrow = bracketed & (outside | (right - left <= narrowest * right))

        # Nothing is learned from a value that is not finite, but that it is too far.
        next_state = WolfeState(
            step=next_step,
            status=state.status,
            evaluations=evaluations,
            value=state.value,
            slope=state.slope,
            low=next_low,
            high=next_high,
            bracketed=bracketed,
            early=early,
            closing=jnp.where(narrow, TOO_NARROW, 0),
            limit=state.limit,
            width=jnp.where(bracketed, width, state.width),
            width_before=jnp.where(bracketed, state.width, state.width_before),
        )
        shorter = state._replace(
            step=low.step + 0.1 * (step - low.step),
            evaluations=evaluations,
            limit=jnp.where(
                state.bracketed, state.limit, low.step + 0.5 * (step - low.step)
            ),
        )
        new = where(finite, next_state, shorter)
        over = evaluations >= max_evaluations
        closing = jnp.where((new.closing == 0) & over, TOO_MANY, new.closing)
        # A search that ends goes back to its best step, if it has one.
        best = new.low.step
        failed = (closing > 0) & (best == 0)
        # The step that was just evaluated need not be evaluated again.
        here = (closing > 0) & (best == step) & finite
        status = jnp.where(here, closing, SEARCHING)
        status = jnp.where(failed, FAILED, status)
        new = new._replace(
            step=jnp.where(closing > 0, best, new.step),
            closing=closing,
            status=status,
        )
        new = where(ended > 0, new._replace(step=step, status=ended), new)
        return _like(new, state)

    return LineSearch(start, advance)


class BacktrackingState(NamedTuple):
    """State of `backtracking`. All floats have the dtype of the value."""

    step: Scalar  # where to evaluate next; once the search has ended, its result
    status: Scalar  # int32, one of the constants of this module
    evaluations: Scalar  # int32, evaluations so far, without that at zero
    value: Scalar  # phi(0)
    slope: Scalar  # phi'(0)
    error: Scalar  # what the last value lacks to a sufficient decrease, >= 0


def backtracking(
    slope_rtol: Number = 1e-4,
    decrease_factor: Number = 0.8,
    *,
    max_backtracking_steps: Number = 20,
    atol: Number = 0.0,
    rtol: Number = 0.0,
) -> LineSearch:
    """The search that makes a step smaller until the value decreases enough.

        phi(t) <= (1 + rtol) phi(0) + slope_rtol t phi'(0) + atol

    Args:
      slope_rtol: Part of the decrease that the slope at zero promises.
      decrease_factor: Factor of the step after each failure.
      max_backtracking_steps: Number of reductions after which the last step is taken.
      atol: Absolute tolerance.
      rtol: Tolerance relative to the first value.

    Returns:
      A `LineSearch` that makes no use of slopes but the first. It `FAILED` if the last
      value is not finite; ``step`` is then 0.

    >>> search = backtracking(decrease_factor=0.5)
    >>> state = search.start(1.0, -2.0, 4.0)  # of phi(t) = (t - 1) ** 2
    >>> while state.status == SEARCHING:
    ...     state = search.advance(state, (state.step - 1.0) ** 2, 0.0)
    >>> float(state.step), int(state.evaluations)
    (1.0, 3)
    """

    def start(value, slope, step):
        value, slope, step = _floats(value, slope, step)
        return BacktrackingState(
            step=step,
            status=jnp.asarray(SEARCHING, jnp.int32),
            evaluations=jnp.zeros((), jnp.int32),
            value=value,
            slope=slope,
            error=jnp.asarray(jnp.inf, value.dtype),
        )

    def advance(state, value, slope):
        del slope
        _, value, _ = _floats(state.value, value, 0.0)
        part, factor, absolute, relative = _numbers(
            value.dtype, slope_rtol, decrease_factor, atol, rtol
        )
        bound = (1 + relative) * state.value + part * state.step * state.slope
        error = value - bound
        error = jnp.where(jnp.isnan(error), jnp.inf, jnp.maximum(error, 0))
        over = state.evaluations >= max_backtracking_steps
        enough = error <= absolute
        status = jnp.where(enough, CONVERGED, jnp.where(over, TOO_MANY, SEARCHING))
        failed = over & jnp.isinf(error)
        step = jnp.where(enough | over, state.step, factor * state.step)
        new = state._replace(
            step=jnp.where(failed, 0.0, step),
            status=jnp.where(failed, FAILED, status),
            evaluations=state.evaluations + 1,
            error=error,
        )
        return _like(new, state)

    return LineSearch(start, advance)


def _floats(*numbers: ArrayLike) -> list[Scalar]:
    """Numbers as scalars of the compute dtype of the first."""
    dtype = jnp.result_type(numbers[0])
    floating = jnp.issubdtype(dtype, jnp.floating)
    dtype = tree.compute_dtype(dtype) if floating else tree.scalar_dtype()
    return [jnp.asarray(x).astype(dtype) for x in numbers]


def _numbers(dtype: Any, *numbers: Number) -> list[Scalar]:
    """Tolerances in the dtype of the value."""
    return [jnp.asarray(x).astype(dtype) for x in numbers]


def _noise(value: Scalar, rtol: Number | None) -> Scalar:
    """The difference from ``value`` that may be rounding errors."""
    if rtol is None:
        rtol = ROUNDING_ULPS * float(jnp.finfo(value.dtype).eps)
    return jnp.asarray(rtol).astype(value.dtype) * jnp.abs(value)


def where(condition: Scalar, new: Any, old: Any) -> Any:
    """Return one tree of arrays or the other; what is in both is not selected.

    >>> where(jnp.array(True), (1.0, 2.0), (3.0, 4.0))[0]
    Array(1., dtype=float32, weak_type=True)
    """
    return jax.tree.map(
        lambda x, y: x if x is y else jnp.where(condition, x, y), new, old
    )


def _like(new: Any, old: Any) -> Any:
    """The new state with the dtypes of the old one."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), new, old)


def _tilted(end: End, slope: Scalar) -> End:
    """An end of the function plus ``slope`` times the step."""
    return End(end.step, end.value + slope * end.step, end.slope + slope)


def _reach(state: WolfeState, least: Scalar, growth: Scalar) -> tuple[Scalar, Scalar]:
    """The smallest and largest step that may follow the trial."""
    step, low, high = state.step, state.low.step, state.high.step
    # The first trial has nothing behind it.
    ahead = jnp.where(low == 0, 0.0, step + 1.1 * (step - low))
    smallest = jnp.where(state.bracketed, jnp.minimum(low, high), ahead)
    far = step + growth * (step - low)
    largest = jnp.where(state.bracketed, jnp.maximum(low, high), far)
    return jnp.maximum(smallest, least), jnp.minimum(largest, state.limit)


def _divided(
    trial: End, low: End, high: End, bracketed: Scalar, reach: tuple[Scalar, Scalar]
) -> tuple[End, End, Scalar, Scalar]:
    """The bracket with a trial step inside, and the next step: MINPACK's ``dcstep``.

    Four cases, by what the trial is beside the best end so far: (1) it is higher, or
    else the slopes (2) have opposite signs, (3) have one sign and it is flatter, or (4)
    have one sign and it is as steep.
    """
    smallest, largest = reach
    higher = trial.value > low.value
    crossed = ~higher & (trial.slope * jnp.sign(low.slope) < 0)
    steep = jnp.abs(trial.slope) >= jnp.abs(low.slope)
    flatter = ~higher & ~crossed & ~steep
    beyond = ~higher & ~crossed & steep
    outward = jnp.where(trial.step > low.step, largest, smallest)

    # The minimum of the cubic through two ends, seen from the nearer one.
    a = where(higher, low, trial)
    b = where(higher, trial, where(beyond, high, low))
    cubic, ratio, curved = _cubic_minimum(a, b)
    # That of a quadratic: through both values and one slope, or through both slopes.
    span = trial.step - low.step
    rise = (low.value - trial.value) / span + low.slope
    by_value = low.step + low.slope / rise / 2 * span
    by_slope = trial.step - trial.slope / (trial.slope - low.slope) * span

    case_1 = jnp.where(
        jnp.abs(cubic - low.step) < jnp.abs(by_value - low.step),
        cubic,
        cubic + (by_value - cubic) / 2,
    )
    nearer = jnp.abs(cubic - trial.step) < jnp.abs(by_slope - trial.step)
    case_2 = jnp.where(nearer, by_slope, cubic)
    # The cubic may have its minimum behind the trial, or none.
    forward = jnp.where((ratio < 0) & curved, cubic, outward)
    nearer = jnp.abs(forward - trial.step) < jnp.abs(by_slope - trial.step)
    inside = jnp.where(nearer, forward, by_slope)
    bound = trial.step + 0.66 * (high.step - trial.step)
    inside = jnp.where(
        trial.step > low.step, jnp.minimum(bound, inside), jnp.maximum(bound, inside)
    )
    extended = jnp.clip(jnp.where(nearer, by_slope, forward), smallest, largest)
    case_3 = jnp.where(bracketed, inside, extended)
    case_4 = jnp.where(bracketed, cubic, outward)
    step = jnp.where(
        higher,
        case_1,
        jnp.where(crossed, case_2, jnp.where(flatter, case_3, case_4)),
    )
    # Equal slopes or values can make a quotient of zeros.
    middle = low.step + 0.5 * (jnp.where(bracketed, high.step, trial.step) - low.step)
    step = jnp.where(jnp.isfinite(step), step, middle)

    new_high = where(higher, trial, where(crossed, low, high))
    new_low = where(higher, low, trial)
    return new_low, new_high, step, bracketed | higher | crossed


def _cubic_minimum(a: End, b: End) -> tuple[Scalar, Scalar, Scalar]:
    """The step at the minimum of the cubic through two ends, as ``a + ratio (b - a)``.

    Returns:
      The step, the ratio, and whether the cubic is curved enough to have a minimum.
    """
    theta = 3 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope
    scale = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(a.slope), jnp.abs(b.slope)))
    square = (theta / scale) ** 2 - (a.slope / scale) * (b.slope / scale)
    gamma = scale * jnp.sqrt(jnp.maximum(square, 0))
    gamma = jnp.where(b.step < a.step, -gamma, gamma)
    ratio = ((gamma - a.slope) + theta) / (((gamma - a.slope) + gamma) + b.slope)
    return a.step + ratio * (b.step - a.step), ratio, gamma != 0
