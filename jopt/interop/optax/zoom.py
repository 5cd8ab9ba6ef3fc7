"""The line search of optax: Nocedal & Wright, 2006, algorithms 3.5 and 3.6.

It grows the step until an interval must contain a good one, then divides the interval
at the minimum of a cubic, of a parabola, or in the middle. If that takes too long, it
returns the lowest step with a sufficient decrease. Like the searches of jopt it asks
for one evaluation at a time; `jopt.scale_by_zoom_linesearch` has another search.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.gradients.line_search import (
    CONVERGED,
    FAILED,
    SEARCHING,
    TOO_MANY,
    End,
    LineSearch,
    where,
)


class ZoomState(NamedTuple):
    """State of `zoom`."""

    step: jax.Array  # where to evaluate next; once the search has ended, its result
    status: jax.Array  # int32, see `jopt.gradients.line_search`
    evaluations: jax.Array  # int32, evaluations so far
    value: jax.Array  # phi(0)
    slope: jax.Array  # phi'(0)
    last: End  # the last step that was tried
    found: jax.Array  # bool, whether there is an interval
    low: End  # the end of the interval with the lower value
    high: End  # the other end
    third: End  # one more point, for the cubic
    safe: End  # the lowest step with a sufficient decrease; its step is 0 without one
    decrease_error: jax.Array
    curvature_error: jax.Array
    reached: jax.Array  # bool, whether the largest step was tried without an interval
    closing: jax.Array  # bool, whether the last evaluation is at the safe step


def zoom(
    max_linesearch_steps: Any,
    max_stepsize: Any,
    tol: Any,
    increase_factor: Any,
    slope_rtol: Any,
    curv_rtol: Any,
    approx_dec_rtol: Any,
    interval_threshold: Any,
) -> LineSearch:
    """The search of `scale_by_zoom_linesearch`, with its arguments."""

    def start(value, slope, step):
        dtype = value.dtype
        zero = End(jnp.zeros((), dtype), value, slope)
        unknown = jnp.asarray(jnp.inf, dtype)
        no = jnp.zeros((), bool)
        return ZoomState(
            step=_capped(jnp.asarray(step).astype(dtype), max_stepsize),
            status=jnp.asarray(SEARCHING, jnp.int32),
            evaluations=jnp.zeros((), jnp.int32),
            value=value,
            slope=slope,
            last=zero,
            found=no,
            low=zero,
            high=zero,
            third=zero,
            safe=zero,
            decrease_error=unknown,
            curvature_error=unknown,
            reached=no,
            closing=no,
        )

    def advance(state, value, slope):
        def number(x):
            return jnp.asarray(x).astype(state.value.dtype)

        part, flat, enough = number(slope_rtol), number(curv_rtol), number(tol)
        new, low, high = End(state.step, value, slope), state.low, state.high
        decrease = value - state.value - part * new.step * state.slope
        if approx_dec_rtol is not None:
            # Hager & Zhang's condition, where the value is not much higher.
            flatness = slope - (2 * part - 1) * state.slope
            higher = (
                value - state.value - number(approx_dec_rtol) * jnp.abs(state.value)
            )
            decrease = jnp.minimum(jnp.maximum(flatness, higher), decrease)
        decrease = _error(decrease)
        curvature = _error(jnp.abs(slope) - flat * jnp.abs(state.slope))
        good = jnp.maximum(decrease, curvature) <= enough

        # Before there is an interval.
        first = state.evaluations == 0
        above = (decrease > 0) | ((value >= state.last.value) & ~first)
        beyond = (slope >= 0) & ~above
        found = above | beyond | good
        opened_low = where(beyond, new, state.last)
        opened_high = where(beyond, state.last, new)
        if max_stepsize is None:
            reached = jnp.zeros((), bool)
        else:
            reached = (new.step >= number(max_stepsize)) & ~found & ~state.found

        # Inside an interval.
        to_high = (decrease > 0) | (value >= low.value)
        swapped = (slope * (high.step - low.step) >= 0) & ~to_high
        divided_low = where(to_high, low, new)
        divided_high = where(swapped, low, where(to_high, new, high))
        third = where(to_high | swapped, high, low)

        lower = (value < state.safe.value) | ~state.found
        safe = where((decrease <= enough) & lower, new, state.safe)
        too_small = jnp.abs(high.step - low.step) <= number(interval_threshold)
        too_small &= state.found & (safe.step > 0)
        evaluations = state.evaluations + 1
        done = good | reached
        over = ((evaluations >= max_linesearch_steps) | too_small) & ~done

        new_low = where(state.found, divided_low, opened_low)
        new_high = where(state.found, divided_high, opened_high)
        third = where(state.found, third, opened_low)
        inside = state.found | found
        larger = _capped(number(increase_factor) * new.step, max_stepsize)
        step = jnp.where(inside, _between(new_low, new_high, third), larger)

        # Without a better step, the last one is taken, unless the loss is not finite.
        back = over & ((safe.step > 0) | jnp.isinf(decrease))
        failed = back & (safe.step == 0)
        here = done | (over & (~back | (safe.step == new.step)))
        status = jnp.where(done, CONVERGED, jnp.where(here, TOO_MANY, SEARCHING))
        after = ZoomState(
            step=jnp.where(back, safe.step, jnp.where(here, new.step, step)),
            status=jnp.where(failed, FAILED, status).astype(jnp.int32),
            evaluations=evaluations,
            value=state.value,
            slope=state.slope,
            last=new,
            found=inside,
            low=new_low,
            high=new_high,
            third=third,
            safe=safe,
            decrease_error=decrease,
            curvature_error=curvature,
            reached=reached,
            closing=back & ~here & ~failed,
        )
        ended = state._replace(status=jnp.asarray(TOO_MANY, jnp.int32))
        return where(state.closing, ended, after)

    return LineSearch(start, advance)


def _capped(step: jax.Array, largest: Any) -> jax.Array:
    if largest is None:
        return step
    return jnp.minimum(step, jnp.asarray(largest).astype(step.dtype))


def _error(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(x), jnp.inf, jnp.maximum(x, 0))


def _between(low: End, high: End, third: End) -> jax.Array:
    """A step inside the interval, and not close to its ends."""
    width = jnp.abs(high.step - low.step)
    left = jnp.minimum(low.step, high.step)
    right = jnp.maximum(low.step, high.step)
    # The cubic with the value and slope of one end, and the values of two points.
    to_high, to_third = high.step - low.step, third.step - low.step
    rise = high.value - low.value - low.slope * to_high
    other = third.value - low.value - low.slope * to_third
    scale = (to_high * to_third) ** 2 * (to_high - to_third)
    cubed = (to_third**2 * rise - to_high**2 * other) / scale
    squared = (-(to_third**3) * rise + to_high**3 * other) / scale
    root = jnp.sqrt(squared * squared - 3 * cubed * low.slope)
    cubic = low.step + (root - squared) / (3 * cubed)
    parabola = low.step - low.slope / (2 * rise / to_high**2)
    middle = (low.step + high.step) / 2

    def inside(step, margin):  # false for NaN
        return (step > left + margin * width) & (step < right - margin * width)

    fallback = jnp.where(inside(parabola, 0.1), parabola, middle)
    return jnp.where(inside(cubic, 0.2), cubic, fallback)
