"""L-BFGS and line searches, with optax's names, arguments, numbers and states."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.quasi_newton import (
    Pairs,
    dot,
    inverse_curvature,
    inverse_hessian_times,
    put,
)
from jopt.gradients.line_search import backtracking
from jopt.gradients.searched_steps import End, Line, bound
from jopt.interop.optax.base import (
    Pair,
    ScalarOrSchedule,
    chain,
    own,
    own_without_extra,
)
from jopt.interop.optax.scaling import identity, scale, scale_by_learning_rate
from jopt.interop.optax.zoom import zoom
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# Messages of `verbose`, as programs of optax may look for them.
FLAG_INTERVAL_NOT_FOUND = (
    "No interval contains a flat enough step: increase the largest step."
)
FLAG_INTERVAL_TOO_SMALL = "The interval has become smaller than stepsize_precision."
FLAG_CURVATURE_COND_NOT_SATISFIED = (
    "The step decreases the loss enough, but the slope there is too steep."
)
FLAG_NO_STEPSIZE_FOUND = "No step decreases the loss enough."
FLAG_NOT_A_DESCENT_DIRECTION = "The updates do not point downhill."


class ScaleByLBFGSState(NamedTuple):
    """State of `scale_by_lbfgs`."""

    count: Any
    params: Any
    updates: Any
    diff_params_memory: Any
    diff_updates_memory: Any
    weights_memory: Any


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search of `scale_by_backtracking_linesearch` ended."""

    num_linesearch_steps: Any
    decrease_error: Any


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """State of `scale_by_backtracking_linesearch`."""

    learning_rate: Any
    value: Any
    grad: Any
    info: Any


class ZoomLinesearchInfo(NamedTuple):
    """How the last search of `scale_by_zoom_linesearch` ended."""

    num_linesearch_steps: Any
    decrease_error: Any
    curvature_error: Any


class ScaleByZoomLinesearchState(NamedTuple):
    """State of `scale_by_zoom_linesearch`."""

    learning_rate: Any
    value: Any
    grad: Any
    info: Any


def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> Pair:
    """Multiply by the inverse Hessian of L-BFGS, see `jopt.scale_by_lbfgs`.

    As in optax, pairs of negative curvature are kept, and the memory has the dtypes of
    the parameters.

    Args:
      memory_size: Number of pairs to keep, >= 1.
      scale_init_precond: Whether the first matrix is a multiple of the identity that
        fits the last pair.

    Returns:
      A transformation.
    """
    arguments.at_least(1, memory_size=memory_size)

    def init(params):
        def stack(p):
            return jnp.broadcast_to(jnp.zeros_like(p), (memory_size, *p.shape))

        return ScaleByLBFGSState(
            count=jnp.zeros((), jnp.int32),
            params=jax.tree.map(jnp.zeros_like, params),
            updates=jax.tree.map(jnp.zeros_like, params),
            diff_params_memory=jax.tree.map(stack, params),
            diff_updates_memory=jax.tree.map(stack, params),
            weights_memory=jnp.zeros(memory_size),
        )

    def update(updates, state, params):
        later = state.count > 0
        step = jax.tree.map(jnp.subtract, params, state.params)
        change = jax.tree.map(jnp.subtract, updates, state.updates)
        curvature = dot(step, change)
        weight = jnp.where(curvature == 0, 0, 1 / curvature)
        pairs = Pairs(
            state.count - 1,
            state.diff_params_memory,
            state.diff_updates_memory,
            state.weights_memory,
        )
        pairs = put(pairs, step, change, weight, later)
        pairs = pairs._replace(count=state.count)
        first = jnp.ones((), pairs.weights.dtype)
        if scale_init_precond:
            fitting = jnp.where(
                dot(change, change) > 0, inverse_curvature(step, change), 1
            )
            capped = jnp.minimum(1, 1 / tree.norm(updates))
            first = jnp.where(later, fitting.astype(first.dtype), capped)
        new = inverse_hessian_times(pairs, first, updates)
        state = ScaleByLBFGSState(
            count=tree.safe_increment(state.count),
            params=params,
            updates=updates,
            diff_params_memory=pairs.steps,
            diff_updates_memory=pairs.changes,
            weights_memory=pairs.weights,
        )
        return tree.cast_like(new, updates), state

    return own_without_extra(init, update)


def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: float = 1e-4,
    decrease_factor: float = 0.8,
    increase_factor: float = 1.5,
    max_learning_rate: float = 1.0,
    atol: float = 0.0,
    rtol: float = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> Pair:
    """Search backwards, see `jopt.scale_by_backtracking_linesearch`.

    Args:
      max_backtracking_steps: Number of reductions after which the last step is taken.
      slope_rtol: Part of the decrease that the slope promises.
      decrease_factor: Factor of the step after each failure.
      increase_factor: Factor from the last step to the first guess of the next.
      max_learning_rate: Largest step.
      atol: Absolute tolerance.
      rtol: Tolerance relative to the value.
      store_grad: Whether to keep the gradient at the new parameters in the state.
      verbose: Whether to print why a search failed.

    Returns:
      A transformation.
    """
    search = backtracking(
        slope_rtol,
        decrease_factor,
        max_backtracking_steps=max_backtracking_steps,
        atol=atol,
        rtol=rtol,
    )

    def init(params):
        unknown = jnp.asarray(jnp.inf, _dtype(params))
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones((), _dtype(params)),
            value=unknown,
            grad=jax.tree.map(jnp.zeros_like, params) if store_grad else None,
            info=BacktrackingLinesearchInfo(jnp.asarray(0), unknown.copy()),
        )

    def update(updates, state, params, *, value, grad, value_fn, **extra_args):
        rate = state.learning_rate
        factor, largest = (
            jnp.asarray(x).astype(rate.dtype)
            for x in (increase_factor, max_learning_rate)
        )
        guess = jnp.minimum(factor * rate, largest)
        fn = _bound("scale_by_backtracking_linesearch", value_fn, extra_args)
        line = Line(updates, params, grad, fn)
        end = line.search(search, value, guess, "last" if store_grad else "none")
        error = end.state.error
        if verbose:
            name = "scale_by_backtracking_linesearch"
            _print(name, error > atol, FLAG_NO_STEPSIZE_FOUND, end, error)
        info = BacktrackingLinesearchInfo(end.state.evaluations, error)
        grad = end.grad if store_grad else None
        new = ScaleByBacktrackingLinesearchState(end.state.step, end.value, grad, info)
        return line.updates(end.state.step), tree.cast_like(new, state)

    return own(init, update)


def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: float | None = None,
    tol: float = 0.0,
    increase_factor: float = 2.0,
    slope_rtol: float = 1e-4,
    curv_rtol: float = 0.9,
    approx_dec_rtol: float | None = 1e-6,
    stepsize_precision: float = 1e-5,
    initial_guess_strategy: Literal["keep", "one"] = "keep",
    verbose: bool = False,
) -> Pair:
    """Search for a low and flat step, see `jopt.scale_by_zoom_linesearch`.

    The search is that of Nocedal and Wright, as in optax.

    Args:
      max_linesearch_steps: Number of evaluations after which the best step is taken.
      max_learning_rate: Largest step; None means no limit.
      tol: Absolute tolerance.
      slope_rtol: Part of the decrease that the slope promises.
      curv_rtol: Part of the slope that may be left.
      initial_guess_strategy: The first step to try: 1, or the last step.
      increase_factor: Factor of the step until an interval is found.
      approx_dec_rtol: Relative increase of the value that is accepted where the slope
        is flat; None means none.
      stepsize_precision: Width of an interval that is not divided further.
      verbose: Whether to print why a search failed.

    Returns:
      A transformation.

    Raises:
      ValueError: ``initial_guess_strategy`` is another word.
    """
    arguments.one_of(("keep", "one"), initial_guess_strategy=initial_guess_strategy)
    search = zoom(
        max_linesearch_steps,
        max_learning_rate,
        tol,
        increase_factor,
        slope_rtol,
        curv_rtol,
        approx_dec_rtol,
        stepsize_precision,
    )

    def init(params):
        unknown = jnp.asarray(jnp.inf)
        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones((), _dtype(params)),
            value=jnp.asarray(jnp.inf, _dtype(params)),
            grad=jax.tree.map(jnp.zeros_like, params),
            info=ZoomLinesearchInfo(jnp.asarray(0), unknown, unknown.copy()),
        )

    def update(updates, state, params, *, value, grad, value_fn, **extra_args):
        one = initial_guess_strategy == "one"
        guess = jnp.ones_like(state.learning_rate) if one else state.learning_rate
        fn = _bound("scale_by_zoom_linesearch", value_fn, extra_args)
        line = Line(updates, params, grad, fn)
        end = line.search(search, value, guess, "each")
        last = end.state
        if verbose:
            _explain(last, end, stepsize_precision, tol)
        info = ZoomLinesearchInfo(
            last.evaluations, last.decrease_error, last.curvature_error
        )
        new = ScaleByZoomLinesearchState(last.step, end.value, end.grad, info)
        return line.updates(last.step), tree.cast_like(new, state)

    return own(init, update)


FROM_ONE = scale_by_zoom_linesearch(20, initial_guess_strategy="one")


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Any = FROM_ONE,
) -> Pair:
    """L-BFGS, see `jopt.lbfgs`.

    Args:
      learning_rate: Multiplies the direction before the line search; None means 1.
      memory_size: Number of pairs to keep.
      scale_init_precond: See `scale_by_lbfgs`.
      linesearch: The search for the step; None takes the direction as it is.

    Returns:
      A transformation.
    """
    rate = scale(-1.0)
    if learning_rate is not None:
        rate = scale_by_learning_rate(learning_rate)
    last = identity() if linesearch is None else linesearch
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, last)


def value_and_grad_from_state(
    value_fn: Callable[..., Any],
) -> Callable[..., tuple[Any, Any]]:
    """Take value and gradient from a state, see `jopt.value_and_grad_from_state`.

    Args:
      value_fn: The loss, a function of the parameters.

    Returns:
      A function ``f(params, …, state=state)`` that returns the value and the gradient.
      It raises an error if the state has no ``value`` and ``grad``, or several.
    """

    def value_and_grad(params, *args, state, **kwargs):
        value, grad = (tree.get(state, name) for name in ("value", "grad"))
        if value is None or grad is None:
            raise ValueError(
                "value_and_grad_from_state: the state has no value, or no gradient. A "
                "line search keeps them; scale_by_backtracking_linesearch keeps the "
                "gradient with store_grad=True"
            )

        def compute():
            return jax.value_and_grad(value_fn)(params, *args, **kwargs)

        kept = tree.cast_like((value, grad), jax.eval_shape(compute))
        return jax.lax.cond(jnp.isfinite(value), lambda: kept, compute)

    return value_and_grad


def _dtype(params: Any) -> Any:
    """The real dtype of the first leaf."""
    return jnp.finfo(jax.tree.leaves(params)[0].dtype).dtype


def _bound(name: str, value_fn: Any, extra: dict[str, Any]) -> Callable[[Any], Any]:
    taken = inspect.signature(value_fn).parameters
    left = sorted(extra.keys() - taken.keys())
    if left:
        raise TypeError(
            f"{name}: Unexpected keyword arguments {left}: value_fn, which is "
            f"{abbreviated(value_fn)}, takes {list(taken)}"
        )
    return bound(value_fn, extra)


def _print(name: str, condition: Any, text: str, end: End, error: Any) -> None:
    jax.lax.cond(
        condition,
        lambda *numbers: jax.debug.print(
            name + ": " + text + " Value {}, slope {}, step {}, decrease error {}",
            *numbers,
            ordered=True,
        ),
        lambda *_: None,
        *(end.state.value, end.state.slope, end.state.step, error),
    )


def _explain(state: Any, end: End, precision: Any, tol: Any) -> None:
    """Print what a search did not reach."""
    error = state.decrease_error
    failed = jnp.maximum(error, state.curvature_error) > tol
    narrow = jnp.abs(state.low.step - state.high.step) <= precision
    safe = state.safe.step > 0
    rows = (
        (state.reached, FLAG_INTERVAL_NOT_FOUND),
        (failed & narrow & ~state.reached, FLAG_INTERVAL_TOO_SMALL),
        (failed & (safe | state.reached), FLAG_CURVATURE_COND_NOT_SATISFIED),
        (failed & ~safe & ~state.reached, FLAG_NO_STEPSIZE_FOUND),
        (failed & ~safe & (state.slope >= 0), FLAG_NOT_A_DESCENT_DIRECTION),
    )
    for condition, text in rows:
        _print("scale_by_zoom_linesearch", condition, text, end, error)
