"""Steps whose length a line search finds, as the last member of a chain.

    u <- t u,   t such that f(p + t u) is low enough, and at best flat

The searches are in `line_search`. They evaluate the loss at other parameters, so the
update needs the loss as a function: ``update(u, state, params, value=…, grad=…,
value_fn=loss)``. Value and gradient at the new parameters are kept in the state, for
`value_and_grad_from_state` to use in the next step.

Nocedal & Wright, "Numerical Optimization", 2006, chapter 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.apply import apply_updates
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves, wide
from jopt.core.transformation import GradientTransformation, Params
from jopt.gradients.line_search import (
    FAILED,
    SEARCHING,
    LineSearch,
    backtracking,
    strong_wolfe,
)
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.numbers import ScalarOrSchedule


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search of `scale_by_backtracking_linesearch` ended."""

    num_linesearch_steps: jax.Array  # int32 scalar, evaluations
    decrease_error: jax.Array  # what the value lacks to a sufficient decrease, >= 0


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """State of `scale_by_backtracking_linesearch`."""

    learning_rate: jax.Array  # the last step; 0 if no step was good
    value: jax.Array  # the loss there; inf before the first step
    grad: Any  # the gradient there, like params; None unless store_grad
    info: BacktrackingLinesearchInfo


class ZoomLinesearchInfo(NamedTuple):
    """How the last search of `scale_by_zoom_linesearch` ended."""

    num_linesearch_steps: jax.Array  # int32 scalar, evaluations
    decrease_error: jax.Array  # what the value lacks to a sufficient decrease, >= 0
    curvature_error: jax.Array  # by how much the slope is too steep, >= 0


class ScaleByZoomLinesearchState(NamedTuple):
    """State of `scale_by_zoom_linesearch`."""

    learning_rate: jax.Array  # the last step; 0 if no step was good
    value: jax.Array  # the loss there; inf before the first step
    grad: Any  # the gradient there, like params
    info: ZoomLinesearchInfo


@transformation
def scale_by_backtracking_linesearch(
    max_backtracking_steps: int = 20,
    slope_rtol: ScalarOrSchedule = 1e-4,
    decrease_factor: ScalarOrSchedule = 0.8,
    increase_factor: ScalarOrSchedule = 1.5,
    max_learning_rate: ScalarOrSchedule = 1.0,
    atol: ScalarOrSchedule = 0.0,
    rtol: ScalarOrSchedule = 0.0,
    store_grad: bool = False,
) -> GradientTransformation:
    """Multiply by the first step that decreases the loss enough (Armijo's rule).

        f(p + t u) <= (1 + rtol) f(p) + slope_rtol t <u, g> + atol

    The search starts at the last step times ``increase_factor``, and makes it smaller
    until the condition holds. Put it last in a chain, after an optimizer whose updates
    point downhill, such as ``sgd(1.0)``.

    Args:
      max_backtracking_steps: Number of reductions after which the last step is taken.
      slope_rtol: Part of the decrease that the slope promises, >= 0.
      decrease_factor: Factor of the step after each failure, in (0, 1).
      increase_factor: Factor from the last step to the first guess of the next, > 0;
        ``jnp.inf`` starts at ``max_learning_rate`` each time.
      max_learning_rate: Largest step, > 0.
      atol: Absolute tolerance, >= 0.
      rtol: Tolerance relative to the value, >= 0.
      store_grad: Whether to keep the gradient at the new parameters in the state, for
        `value_and_grad_from_state`. The search evaluates the loss there in any case.

    Returns:
      A transformation whose update needs params, ``value`` and ``grad``, the loss and
      its gradient at the params, and ``value_fn``, the loss as a function. ``value_fn``
      gets those further arguments of the update that it has, such as a batch.

    Raises:
      ValueError: A number is out of range.

    The rule is optax's. Where optax would never step again after a step of zero, this
    starts at 1.

    >>> import jax, jopt
    >>> f = lambda p: jnp.sum(p**2)
    >>> tx = jopt.chain(jopt.sgd(1.0), jopt.scale_by_backtracking_linesearch())
    >>> params = jnp.array([1.0, 2.0])
    >>> value, grad = jax.value_and_grad(f)(params)
    >>> loss = dict(value=value, grad=grad, value_fn=f)
    >>> updates, state = tx.update(grad, tx.init(params), params, **loss)
    >>> state["scale_by_backtracking_linesearch"].learning_rate, updates
    (Array(0.8, dtype=float32), Array([-1.6, -3.2], dtype=float32))
    """
    arguments.at_least(1, max_backtracking_steps=max_backtracking_steps)
    arguments.nonnegative(slope_rtol=slope_rtol, atol=atol, rtol=rtol)
    arguments.positive(decrease_factor=decrease_factor)
    arguments.decay_rate(decrease_factor=decrease_factor)
    arguments.limit(increase_factor=increase_factor)
    arguments.positive(max_learning_rate=max_learning_rate)
    search = backtracking(
        slope_rtol,
        decrease_factor,
        max_backtracking_steps=max_backtracking_steps,
        atol=atol,
        rtol=rtol,
    )

    def init(params):
        unknown = jnp.asarray(jnp.inf, tree.scalar_dtype())
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones((), tree.scalar_dtype()),
            value=unknown,
            grad=jax.tree.map(jnp.zeros_like, params) if store_grad else None,
            info=BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), unknown.copy()),
        )

    def update(updates, state, params, *, value, grad, value_fn, **extra):
        line = Line(updates, params, grad, bound(value_fn, extra))
        guess = _increased(state.learning_rate, increase_factor, max_learning_rate)
        end = line.search(search, value, guess, "last" if store_grad else "none")
        errors = end.state.error
        info = BacktrackingLinesearchInfo(end.state.evaluations, errors)
        new = ScaleByBacktrackingLinesearchState(
            end.state.step, end.value, end.grad if store_grad else None, info
        )
        return line.updates(end.state.step), tree.cast_like(new, state)

    return GradientTransformation(
        init, update, state_class=ScaleByBacktrackingLinesearchState
    )


@transformation
def scale_by_zoom_linesearch(
    max_linesearch_steps: int = 20,
    max_learning_rate: ScalarOrSchedule | None = None,
    tol: ScalarOrSchedule = 0.0,
    increase_factor: ScalarOrSchedule = 4.0,
    slope_rtol: ScalarOrSchedule = 1e-4,
    curv_rtol: ScalarOrSchedule = 0.9,
    approx_dec_rtol: ScalarOrSchedule | None = None,
    stepsize_precision: ScalarOrSchedule = 0.1,
    initial_guess_strategy: Literal["keep", "one"] = "keep",
) -> GradientTransformation:
    """Multiply by a step at which the loss is lower and flatter (strong Wolfe).

        f(p + t u) <= f(p) + slope_rtol t <u, g> + tol     and
        |<u, g(p + t u)>| <= curv_rtol |<u, g>| + tol

    Put it last in a chain whose updates point downhill. The search is that of Moré and
    Thuente, with the steps of L-BFGS-B. It makes the step smaller where the loss is not
    finite, and judges by slopes where values differ by rounding errors only. If no step
    is good, it takes the best, or zero.

    Args:
      max_linesearch_steps: Number of evaluations after which the best step is taken.
      max_learning_rate: Largest step; None means 1e10.
      tol: Absolute tolerance of both conditions, >= 0.
      increase_factor: How many times the last increase of the step the next may be, at
        most; > 1.1.
      slope_rtol: Part of the decrease that the slope promises, >= 0.
      curv_rtol: Part of the slope that may be left, >= 0.
      approx_dec_rtol: Relative difference of values that may be rounding errors, >= 0;
        None means ten times the precision of the value's dtype.
      stepsize_precision: Relative width of an interval that is not divided further.
      initial_guess_strategy: The first step to try: ``"one"`` for Newton's method and
        its relatives, ``"keep"`` to start at the last step.

    Returns:
      A transformation whose update needs params, ``value`` and ``grad``, the loss and
      its gradient at the params, and ``value_fn``, the loss as a function. ``value_fn``
      gets those further arguments of the update that it has, such as a batch.

    Raises:
      ValueError: A number is out of range.

    Moré & Thuente, "Line search algorithms with guaranteed sufficient decrease", 1994.
    The arguments are optax's, whose search is another one, with other defaults for
    ``increase_factor``, ``approx_dec_rtol`` and ``stepsize_precision``.

    >>> import jax, jopt
    >>> f = lambda p: jnp.sum(p**2)
    >>> tx = jopt.chain(jopt.sgd(0.01), jopt.scale_by_zoom_linesearch(curv_rtol=0.1))
    >>> params = jnp.array([1.0, 2.0])
    >>> value, grad = jax.value_and_grad(f)(params)
    >>> loss = dict(value=value, grad=grad, value_fn=f)
    >>> updates, state = tx.update(grad, tx.init(params), params, **loss)
    >>> updates.round(3), state["scale_by_zoom_linesearch"].value.round(3)
    (Array([-1., -2.], dtype=float32), Array(0., dtype=float32))
    """
    arguments.at_least(1, max_linesearch_steps=max_linesearch_steps)
    arguments.nonnegative(tol=tol, slope_rtol=slope_rtol, curv_rtol=curv_rtol)
    arguments.positive(increase_factor=increase_factor)
    arguments.nonnegative(stepsize_precision=stepsize_precision)
    if max_learning_rate is not None:
        arguments.positive(max_learning_rate=max_learning_rate)
    if approx_dec_rtol is not None:
        arguments.nonnegative(approx_dec_rtol=approx_dec_rtol)
    arguments.one_of(("keep", "one"), initial_guess_strategy=initial_guess_strategy)
    search = strong_wolfe(
        slope_rtol,
        curv_rtol,
        stepsize_precision,
        max_step=1e10 if max_learning_rate is None else max_learning_rate,
        max_evaluations=max_linesearch_steps,
        atol=tol,
        noise_rtol=approx_dec_rtol,
        growth=increase_factor,
    )

    def init(params):
        unknown = jnp.asarray(jnp.inf, tree.scalar_dtype())
        info = ZoomLinesearchInfo(
            jnp.zeros((), jnp.int32), unknown.copy(), unknown.copy()
        )
        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones((), tree.scalar_dtype()),
            value=unknown,
            grad=jax.tree.map(jnp.zeros_like, params),
            info=info,
        )

    def update(updates, state, params, *, value, grad, value_fn, **extra):
        line = Line(updates, params, grad, bound(value_fn, extra))
        guess = jnp.ones((), tree.scalar_dtype())
        if initial_guess_strategy == "keep":
            guess = jnp.where(state.learning_rate > 0, state.learning_rate, 1.0)
        end = line.search(search, value, guess, "each")
        first, step = end.state, end.state.step
        slope = line.slope(end.grad)
        factor, flat = (
            jnp.asarray(x, first.value.dtype) for x in (slope_rtol, curv_rtol)
        )
        lacks = end.value - (first.value + step * factor * first.slope)
        steep = jnp.abs(slope) - flat * jnp.abs(first.slope)
        info = ZoomLinesearchInfo(
            first.evaluations, jnp.maximum(lacks, 0), jnp.maximum(steep, 0)
        )
        new = ScaleByZoomLinesearchState(step, end.value, end.grad, info)
        return line.updates(step), tree.cast_like(new, state)

    return GradientTransformation(init, update, state_class=ScaleByZoomLinesearchState)


def value_and_grad_from_state(
    value_fn: Callable[..., Any],
) -> Callable[..., tuple[jax.Array, Any]]:
    """A ``jax.value_and_grad`` that takes both from the state of a line search.

    The last evaluation of a search is at the new parameters, which are those of the
    next step. So a step costs the evaluations of its search, and none more. The loss
    must be the same function in each step: with batches, use ``jax.value_and_grad``.

    Args:
      value_fn: ``value_fn(params, …)``, the loss.

    Returns:
      A function ``f(params, …, state=state)`` that returns the value and the gradient.
      It evaluates ``value_fn`` only if the state has no finite value: before the first
      step.

    Raises:
      TypeError: ``value_fn`` is not a function.
      ValueError: The state has no value and gradient, or several.

    >>> import jopt
    >>> loss = lambda p: jnp.sum((p - 3.0) ** 2)
    >>> tx, value_and_grad = jopt.lbfgs(), jopt.value_and_grad_from_state(loss)
    >>> @jax.jit
    ... def step(params, state):
    ...     value, grad = value_and_grad(params, state=state)
    ...     updates, state = tx.update(
    ...         grad, state, params, value=value, grad=grad, value_fn=loss
    ...     )
    ...     return jopt.apply_updates(params, updates), state
    >>> params = jnp.zeros(2)
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     params, state = step(params, state)
    >>> params.round(5)
    Array([3., 3.], dtype=float32)
    """
    _check_function(value_fn)

    def value_and_grad(params, *args, state, **kwargs):
        found = list(_searches(state))
        if len(found) != 1:
            which = "several line searches" if found else "no line search"
            raise ValueError(
                f"value_and_grad_from_state needs the state of one line search, and "
                f"this state has {which}. Get the value and gradient from "
                "jax.value_and_grad(value_fn)."
            )
        (value, grad) = found[0].value, found[0].grad
        if grad is None and jax.tree.leaves(params):
            raise ValueError(
                "the state of scale_by_backtracking_linesearch has no gradient: make "
                "it with store_grad=True"
            )

        def compute():
            return jax.value_and_grad(value_fn)(params, *args, **kwargs)

        like = jax.eval_shape(compute)
        kept = tree.cast_like((value, grad), like)
        return jax.lax.cond(jnp.isfinite(value), lambda: kept, compute)

    return value_and_grad


class End(NamedTuple):
    """What a search has found."""

    state: Any  # the last state of the search
    value: jax.Array  # the value at its step
    grad: Any  # the gradient there


class Line:
    """The loss along the updates: ``phi(t) = f(p + t u)``.

    Args:
      updates: The direction.
      params: The parameters.
      grad: The gradient of ``value_fn`` at the parameters.
      value_fn: The loss, a function of the parameters alone.

    Raises:
      ValueError: The trees do not match.
      TypeError: ``value_fn`` does not return one real number.
    """

    def __init__(
        self,
        updates: Any,
        params: Params,
        grad: Any,
        value_fn: Callable[[Params], jax.Array],
    ):
        self.leaves = Leaves(updates)
        self.params, self.value_fn = params, value_fn
        self.leaves.aligned(params, "params")
        self.leaves.aligned(grad, "grad")
        self.grad = tree.cast_like(grad, params)
        out = jax.eval_shape(value_fn, params)
        if out.shape or not jnp.issubdtype(out.dtype, jnp.floating):
            raise TypeError(
                "value_fn must return one real number, the loss at the params, got "
                f"{abbreviated(out)}"
            )
        self.dtype = tree.compute_dtype(out.dtype)

    def updates(self, step: jax.Array) -> Any:
        """The updates of a step, in their dtypes."""

        def times(u):
            x = wide(u)
            # Not 0 * u, which is NaN where u is not finite.
            moved = jnp.where(step > 0, step.astype(x.dtype) * x, 0)
            return moved.astype(jnp.result_type(u))

        return self.leaves.tree(self.leaves.each(times))

    def slope(self, grad: Any) -> jax.Array:
        """The derivative along the updates, from the gradient at a point."""

        def along(u, g):
            # JAX's gradient of a real function is conjugated: df = Re(g du).
            return jnp.sum((wide(u) * wide(g)).real).astype(self.dtype)

        terms = self.leaves.each(along, self.leaves.aligned(grad, "grad"))
        zero = jnp.zeros((), self.dtype)
        return sum((x for x in terms if x is not None), zero)

    def search(
        self,
        search: LineSearch,
        value: Any,
        step: Any,
        grads: Literal["each", "last", "none"],
    ) -> End:
        """Search along the line.

        Args:
          search: The search.
          value: The value at the parameters.
          step: The first step to try.
          grads: Where to take gradients: at each step, for a search by slopes; at the
            step that is found; or nowhere.
        """
        value = jnp.asarray(value).astype(self.dtype)
        first = search.start(value, self.slope(self.grad), step)

        def at(state):
            moved = apply_updates(self.params, self.updates(state.step))
            if grads == "none":
                new = self.value_fn(moved).astype(self.dtype)
                return search.advance(state, new, state.slope), new, None
            if grads == "each":
                new, grad = jax.value_and_grad(self.value_fn)(moved)
                new = new.astype(self.dtype)
                return search.advance(state, new, self.slope(grad)), new, grad
            out, pull = jax.vjp(self.value_fn, moved)
            new = out.astype(self.dtype)
            after = search.advance(state, new, state.slope)
            # The way back is taken at the end only.
            grad = jax.lax.cond(
                after.status == SEARCHING,
                lambda: jax.tree.map(jnp.zeros_like, moved),
                lambda: pull(jnp.ones_like(out))[0],
            )
            return after, new, grad

        grad = None if grads == "none" else self.grad
        state, new, grad = jax.lax.while_loop(
            lambda carry: carry[0].status == SEARCHING,
            lambda carry: at(carry[0]),
            (first, value, grad),
        )
        failed = state.status == FAILED
        back = (value, None if grads == "none" else self.grad)
        value, grad = jax.tree.map(
            lambda old, new: jnp.where(failed, old, new), back, (new, grad)
        )
        return End(state, value, grad)


def _increased(step: jax.Array, factor: Any, limit: Any) -> jax.Array:
    """The step times a factor, which may be infinite; 1 instead of a step of zero."""
    factor, limit = (jnp.asarray(x).astype(step.dtype) for x in (factor, limit))
    return jnp.minimum(jnp.where(step > 0, factor * step, 1), limit)


def bound(value_fn: Any, extra: dict[str, Any]) -> Callable[[Params], jax.Array]:
    """The loss as a function of the parameters, with the further arguments it takes.

    Args:
      value_fn: ``value_fn(params, …)``.
      extra: The further arguments of the update.
    """
    _check_function(value_fn)
    parameters = inspect.signature(value_fn).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        chosen = extra
    else:
        names = [p.name for p in list(parameters)[1:]]
        chosen = {name: extra[name] for name in names if name in extra}
    return lambda params: jnp.asarray(value_fn(params, **chosen))


def _check_function(value_fn: Any) -> None:
    if not callable(value_fn):
        raise TypeError(
            "value_fn must be the loss as a function of the params, got "
            f"{abbreviated(value_fn)}"
        )


def _searches(state: Any) -> Any:
    """The states of line searches inside a state."""
    kinds = (ScaleByBacktrackingLinesearchState, ScaleByZoomLinesearchState)

    def is_one(x):
        return isinstance(x, kinds)

    return (x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x))
