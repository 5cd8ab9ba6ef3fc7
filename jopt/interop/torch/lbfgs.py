"""torch's LBFGS: many iterations in each step, with an evaluation for each of them.

``optimizer.step(closure)`` is an update that gets the closure as ``value_fn``, the loss
as a function of the parameters. Its first evaluation is the gradient and the ``value``
that the update gets:

    value, grads = jax.value_and_grad(closure)(params)
    updates, state = tx.update(grads, state, params, value=value, value_fn=closure)
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.quasi_newton import (
    Pairs,
    dot,
    inverse_hessian_times,
    no_pairs,
    put,
)
from jopt.core.apply import apply_updates
from jopt.core.factory import transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves, wide
from jopt.core.transformation import GradientTransformation
from jopt.gradients.line_search import (
    CONVERGED,
    FAILED,
    SEARCHING,
    TOO_MANY,
    End,
    LineSearch,
    where,
)
from jopt.gradients.searched_steps import Line, bound
from jopt.interop.torch.shared import number_of
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.numbers import ScalarOrSchedule, normalize, tunable


# Those of torch's line search.
C1, C2 = 1e-4, 0.9


class TorchLbfgsState(NamedTuple):
    """State of `LBFGS`, with torch's names for what torch has too."""

    count: jax.Array  # int32 scalar, steps so far
    func_evals: jax.Array  # int32 scalar, evaluations of the loss so far
    n_iter: jax.Array  # int32 scalar, iterations so far
    d: Any  # the last direction, like params
    t: jax.Array  # the last step along it
    old_dirs: Any  # differences of gradients, (history_size, *shape) per leaf
    old_stps: Any  # differences of parameters, in the same way
    ro: jax.Array  # (history_size,), 1 / <s, y> of each pair; 0 without a pair
    pairs: jax.Array  # int32 scalar, pairs stored so far
    H_diag: jax.Array  # the scale of the first matrix
    prev_flat_grad: Any  # the last gradient, like params
    prev_loss: jax.Array  # the last value


class Loop(NamedTuple):
    """What an iteration changes."""

    params: Any
    grad: Any  # as torch has it: conjugated for complex parameters
    value: jax.Array
    state: TorchLbfgsState
    iteration: jax.Array  # in this step
    evaluations: jax.Array  # in this step
    stop: jax.Array


def LBFGS(
    params: None = None,
    lr: ScalarOrSchedule = 1.0,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    history_size: int = 100,
    line_search_fn: Literal["strong_wolfe"] | None = None,
) -> GradientTransformation:
    """torch's LBFGS.

    A step is up to ``max_iter`` iterations, and evaluates the loss in each. Without a
    line search, iterations have the step size ``lr``. `jopt.lbfgs` has one iteration in
    each step, and a search that needs fewer evaluations.

    Args:
      params: None: there is one group of all parameters.
      lr: The learning rate, >= 0.
      max_iter: Largest number of iterations in a step.
      max_eval: Number of evaluations after which a step ends; None means
        ``max_iter * 5 // 4``.
      tolerance_grad: A step ends where no element of the gradient is larger.
      tolerance_change: A step ends where neither parameters nor loss change by more.
      history_size: Number of pairs to keep.
      line_search_fn: ``"strong_wolfe"``, or None for the step size ``lr``.

    Returns:
      A transformation whose update needs params, ``value``, the loss at the params, and
      ``value_fn``, the loss as a function of them.

    Raises:
      ValueError: A number is out of range, or there are parameter groups.

    >>> import jopt
    >>> def closure(params):
    ...     return jnp.sum((params - 3.0) ** 2)
    >>> tx, params = LBFGS(line_search_fn="strong_wolfe"), jnp.zeros(2)
    >>> value, grads = jax.value_and_grad(closure)(params)
    >>> updates, state = tx.update(
    ...     grads, tx.init(params), params, value=value, value_fn=closure
    ... )
    >>> jopt.apply_updates(params, updates), int(state.n_iter)
    (Array([3., 3.], dtype=float32), 2)
    """
    if params is not None:
        raise ValueError(
            "LBFGS has no parameter groups: parameters come with init(params), and all "
            f"are in one group. Got params={abbreviated(params)}"
        )
    rate = normalize("lr", number_of(lr))
    # The learning rate is always in the state.
    rate = tunable(rate) if isinstance(rate, float) else rate
    max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
    return torch_lbfgs(
        rate,
        max_iter,
        max_eval,
        tolerance_grad,
        tolerance_change,
        history_size,
        line_search_fn,
    )


@transformation
def torch_lbfgs(
    learning_rate: ScalarOrSchedule,
    max_iter: int,
    max_eval: int,
    tolerance_grad: float,
    tolerance_change: float,
    history_size: int,
    line_search_fn: Literal["strong_wolfe"] | None = None,
) -> GradientTransformation:
    """Take the steps of `LBFGS`.

    Args:
      learning_rate: See ``lr`` of `LBFGS`.
      max_iter, max_eval, tolerance_grad, tolerance_change, history_size: See `LBFGS`.
      line_search_fn: See `LBFGS`.

    Returns:
      A transformation.
    """
    arguments.nonnegative(learning_rate=learning_rate)
    arguments.at_least(1, max_iter=max_iter, history_size=history_size)
    if line_search_fn not in (None, "strong_wolfe"):
        arguments.one_of(("strong_wolfe",), line_search_fn=line_search_fn)
    slot = zeros()

    def init(params):
        Leaves(params, "params")
        pairs = no_pairs(history_size, params)
        dtype = pairs.weights.dtype
        return TorchLbfgsState(
            count=jnp.zeros((), jnp.int32),
            func_evals=jnp.zeros((), jnp.int32),
            n_iter=jnp.zeros((), jnp.int32),
            d=jax.tree.map(slot.init, params),
            t=jnp.zeros((), dtype),
            old_dirs=pairs.changes,
            old_stps=pairs.steps,
            ro=pairs.weights,
            pairs=pairs.count,
            H_diag=jnp.ones((), dtype),
            prev_flat_grad=jax.tree.map(slot.init, params),
            prev_loss=jnp.zeros((), dtype),
        )

    def iterate(loop, value_fn):
        state, grad = loop.state, loop.grad
        dtype = state.t.dtype
        first = state.n_iter == 0
        change = jax.tree.map(jnp.subtract, grad, state.prev_flat_grad)
        step = _times(state.t, state.d)
        curvature = dot(change, step).astype(dtype)
        keep = ~first & (curvature > 1e-10)
        pairs = Pairs(state.pairs, state.old_stps, state.old_dirs, state.ro)
        weight = 1 / jnp.where(keep, curvature, 1)
        pairs = put(pairs, step, change, weight, keep)
        fitting = curvature / jnp.where(keep, dot(change, change), 1).astype(dtype)
        scale = jnp.where(keep, fitting, state.H_diag)
        direction = _times(-1, inverse_hessian_times(pairs, scale, grad))

        rate = jnp.asarray(learning_rate).astype(dtype)
        cautious = jnp.minimum(1, 1 / _total(grad).astype(dtype))
        t = jnp.where(first, cautious, 1) * rate
        slope = dot(grad, direction).astype(dtype)
        flat = slope > -tolerance_change

        jax_grad = tree.conj(grad)
        line = Line(direction, loop.params, jax_grad, value_fn)
        iteration = loop.iteration + 1
        if line_search_fn is None:
            # Not those of `line`, which takes no step that is negative.
            new_params = apply_updates(loop.params, _times(t, direction))
            new_params = where(flat, loop.params, new_params)

            def evaluate():
                value, new = jax.value_and_grad(value_fn)(new_params)
                new = jax.tree.map(_like, tree.conj(new), grad)
                return value.astype(loop.value.dtype), new

            # Nothing is evaluated after the last iteration.
            asks = ~flat & (iteration != max_iter)
            value, new_grad = jax.lax.cond(asks, evaluate, lambda: (loop.value, grad))
            asked = asks.astype(jnp.int32)
        else:
            search = _strong_wolfe(
                max_eval - loop.evaluations,
                _largest(direction).astype(dtype),
                tolerance_change,
                ~flat,
            )
            end = line.search(search, loop.value, t, "each")
            t = jnp.where(flat, t, end.state.step.astype(dtype))
            new_params = apply_updates(loop.params, line.updates(end.state.step))
            value, asked = end.value.astype(loop.value.dtype), end.state.evaluations
            new_grad = jax.tree.map(_like, tree.conj(end.grad), grad)

        evaluations = loop.evaluations + asked
        stop = flat | (iteration == max_iter) | (evaluations >= max_eval)
        stop |= _largest(new_grad) <= tolerance_grad
        stop |= _largest(_times(t, direction)) <= tolerance_change
        stop |= jnp.abs(value - loop.value) < tolerance_change
        new_state = state._replace(
            func_evals=state.func_evals + asked,
            n_iter=state.n_iter + 1,
            d=direction,
            t=t,
            old_dirs=pairs.changes,
            old_stps=pairs.steps,
            ro=pairs.weights,
            pairs=pairs.count,
            H_diag=scale,
            prev_flat_grad=grad,
            prev_loss=loop.value.astype(dtype),
        )
        return Loop(
            new_params, new_grad, value, new_state, iteration, evaluations, stop
        )

    def update(updates, state, params, *, value, value_fn, **extra):
        leaves = Leaves(updates)
        old = leaves.aligned(params, "params")
        grad = leaves.tree(
            leaves.each(
                lambda g, d: wide(g).astype(d.dtype),
                leaves.aligned(state.d, "the state's d"),
            )
        )
        fn = bound(value_fn, extra)
        start = Loop(
            params=params,
            grad=grad,
            value=jnp.asarray(value).astype(Line(updates, params, updates, fn).dtype),
            state=state._replace(
                count=tree.safe_increment(state.count),
                func_evals=state.func_evals + 1,
            ),
            iteration=jnp.zeros((), jnp.int32),
            evaluations=jnp.ones((), jnp.int32),
            stop=_largest(grad) <= tolerance_grad,
        )
        loop = jax.lax.while_loop(
            lambda loop: ~loop.stop, lambda loop: iterate(loop, fn), start
        )
        new = leaves.aligned(loop.params, "params")
        moved = leaves.each(lambda _, a, b: wide(a) - wide(b), new, old)
        return leaves.rounded(leaves.tree(moved)), loop.state

    return GradientTransformation(init, update, state_class=TorchLbfgsState)


class WolfeState(NamedTuple):
    """State of torch's line search."""

    step: jax.Array  # where to evaluate next; once the search has ended, its result
    status: jax.Array  # int32, see `jopt.gradients.line_search`
    evaluations: jax.Array  # int32, evaluations so far
    value: jax.Array  # phi(0)
    slope: jax.Array  # phi'(0)
    iteration: jax.Array  # int32, as torch counts
    bracketed: jax.Array  # bool, whether first and second are a bracket
    first: End  # before: the last step
    second: End
    first_is_low: jax.Array  # bool
    close: jax.Array  # bool, whether the last trial was close to an end
    closing: jax.Array  # bool, whether the last evaluation is at the result


def _strong_wolfe(
    most: jax.Array, largest: jax.Array, tolerance: float, downhill: jax.Array
) -> LineSearch:
    """torch's search, a port of minFunc's.

    Args:
      most: Number of iterations.
      largest: Largest element of the direction.
      tolerance: Length of a bracket that is not divided further.
      downhill: Whether to search at all.
    """

    def start(value, slope, step):
        step = jnp.asarray(step).astype(value.dtype)
        zero = End(jnp.zeros((), value.dtype), value, slope)
        no = jnp.zeros((), bool)
        return WolfeState(
            step=jnp.where(downhill, step, 0),
            status=jnp.where(downhill, SEARCHING, FAILED).astype(jnp.int32),
            evaluations=jnp.zeros((), jnp.int32),
            value=value,
            slope=slope,
            iteration=jnp.zeros((), jnp.int32),
            bracketed=no,
            first=zero,
            second=zero,
            first_is_low=~no,
            close=no,
            closing=no,
        )

    def advance(state, value, slope):
        new = End(state.step, value, slope)
        zero = End(jnp.zeros_like(value), state.value, state.slope)
        steep = value > state.value + C1 * new.step * state.slope
        flat = jnp.abs(slope) <= -C2 * state.slope

        # Before there is a bracket.
        over = state.iteration >= most
        last = state.first
        higher = steep | ((state.iteration > 1) & (value >= last.value))
        found = ~over & ~higher & flat
        further = ~over & ~higher & ~flat & ~(slope >= 0)
        farther = _cubic(
            last,
            new,
            new.step + 0.01 * (new.step - last.step),
            10 * new.step,
        )
        opened = where(over, zero, last)

        # Inside a bracket.
        low = where(state.first_is_low, state.first, state.second)
        high = where(state.first_is_low, state.second, state.first)
        worse = steep | (value >= low.value)
        good = ~worse & flat
        swapped = ~worse & ~flat & (slope * (high.step - low.step) >= 0)
        new_high = where(worse, new, where(swapped, low, high))
        new_low = where(worse, low, new)
        divided_first = where(state.first_is_low, new_low, new_high)
        divided_second = where(state.first_is_low, new_high, new_low)

        first = where(state.bracketed, divided_first, opened)
        second = where(state.bracketed, divided_second, new)
        ordered = first.value <= second.value
        first_is_low = jnp.where(state.bracketed & ~worse, state.first_is_low, ordered)
        # The last trial itself, if it is good enough.
        first_is_low &= state.bracketed | ~found
        iteration = state.iteration + (state.bracketed | further).astype(jnp.int32)
        bracketed = state.bracketed | ~further

        left = jnp.minimum(first.step, second.step)
        right = jnp.maximum(first.step, second.step)
        done = jnp.where(state.bracketed, good, found)
        narrow = (right - left) * largest.astype(value.dtype) < tolerance
        ended = bracketed & (done | narrow | (iteration >= most))

        inside = _cubic(first, second, left, right)
        margin = 0.1 * (right - left)
        close = jnp.minimum(right - inside, inside - left) < margin
        at_end = (inside >= right) | (inside <= left)
        nearer_right = jnp.abs(inside - right) < jnp.abs(inside - left)
        away = jnp.where(nearer_right, right - margin, left + margin)
        moves = close & (state.close | at_end)
        inside = jnp.where(moves, away, inside)

        best = where(first_is_low, first, second)
        step = jnp.where(bracketed, inside, farther)
        here = ended & (best.step == new.step)
        failed = ended & (best.step == 0)
        status = jnp.where(here, jnp.where(done, CONVERGED, TOO_MANY), SEARCHING)
        after = WolfeState(
            step=jnp.where(ended, best.step, step),
            status=jnp.where(failed, FAILED, status).astype(jnp.int32),
            evaluations=state.evaluations + 1,
            value=state.value,
            slope=state.slope,
            iteration=iteration,
            bracketed=bracketed,
            first=where(further & ~state.bracketed, new, first),
            second=second,
            first_is_low=first_is_low,
            close=bracketed & close & ~moves,
            closing=ended & ~here & ~failed,
        )
        result = state._replace(status=jnp.asarray(TOO_MANY, jnp.int32))
        return where(state.closing, result, after)

    return LineSearch(start, advance)


def _cubic(a: End, b: End, left: jax.Array, right: jax.Array) -> jax.Array:
    """The minimum of the cubic through two ends, between two bounds."""
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    square = d1 * d1 - a.slope * b.slope
    d2 = jnp.sqrt(jnp.maximum(square, 0))
    up = b.step - (b.step - a.step) * (
        (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)
    )
    down = a.step - (a.step - b.step) * (
        (a.slope + d2 - d1) / (a.slope - b.slope + 2 * d2)
    )
    lowest = jnp.where(a.step <= b.step, up, down)
    lowest = jnp.minimum(jnp.maximum(lowest, left), right)
    return jnp.where(square >= 0, lowest, (left + right) / 2)


def _times(factor: Any, whole: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, whole)


def _like(x: jax.Array, old: jax.Array) -> jax.Array:
    return x.astype(old.dtype)


def _parts(whole: Any) -> list[jax.Array]:
    """The absolute real and imaginary parts of all leaves, flat."""
    parts = []
    for x in jax.tree.leaves(whole):
        both = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
        parts += [jnp.abs(part) for part in both]
    return parts


def _largest(whole: Any) -> jax.Array:
    parts = [jnp.max(x, initial=0) for x in _parts(whole)]
    return jnp.max(jnp.stack([x.astype(tree.scalar_dtype()) for x in parts]))


def _total(whole: Any) -> jax.Array:
    parts = [jnp.sum(x) for x in _parts(whole)]
    return jnp.sum(jnp.stack([x.astype(tree.scalar_dtype()) for x in parts]))
