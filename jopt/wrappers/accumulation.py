"""Gradient accumulation: one optimizer step for several gradients.

    acc <- acc + w g,  W <- W + w;   every ``steps`` gradients:  u <- inner(acc / W),
    acc <- 0,  W <- 0

w is the weight of a micro-batch, such as its tokens; without weights it is 1.

State: 4 bytes per float32 parameter beyond the inner transformation's. The inner
transformation runs only in the step that emits, and counts those steps. All other steps
read the gradient and the sum and write the sum, 12 bytes per float32 parameter. What
the contract asks for costs 16 more in a training step: updates, which are zero, and the
parameters that they are added to. `accumulate_grads` and `emit` do without; so does
`micro_batch`, where the micro-batches are at hand together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import tree_checks
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    Updates,
)
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.wrappers.accumulation_steps import check_skip, skips, whole_numbers
from jopt.wrappers.in_place import once_if


class AccumulateState(NamedTuple):
    """State of `accumulate`."""

    mini_step: jax.Array  # int32 scalar, gradients added since the last emission
    gradient_step: jax.Array  # int32 scalar, emissions so far
    inner_opt_state: Any  # of the inner transformation
    acc_grads: Any  # weighted sum of the gradients since then, like params
    total_weight: jax.Array  # float scalar, sum of their weights
    skipped: jax.Array  # int32 scalar, gradients skipped since the last emission
    total_skipped: jax.Array  # int32 scalar, gradients ever skipped

    metrics = ("mini_step", "gradient_step", "total_skipped")


class Accumulation(GradientTransformation):
    """What `accumulate` returns: the whole, and its two halves."""

    add: Callable[..., tuple[AccumulateState, Any]]
    emit: Callable[..., tuple[Updates, AccumulateState]]

    def __new__(cls, *args: Any, add: Any, emit: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self.add, self.emit = add, emit
        return self

    def gradient_transformation(self) -> Accumulation:
        """Itself; what optax's `MultiSteps` turns into a transformation by."""
        return self

    def has_updated(self, state: AccumulateState) -> jax.Array:
        """Whether the last gradient made a step; see `jopt.has_updated`."""
        return (state.mini_step == 0) & (state.skipped == 0) & (state.gradient_step > 0)


@transformation
def accumulate(
    inner: GradientTransformation,
    steps: int | Callable[[jax.Array], Any],
    use_grad_mean: bool = True,
    *,
    grads_are_sums: bool = False,
    should_skip_update_fn: Callable[..., Any] | None = None,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Run a transformation on the mean of several gradients in a row.

    All other updates are zero. ``update(…, weight=w)`` weights a gradient, such as by
    the tokens of its micro-batch; the result is then that of one large batch:

        use_grad_mean  grads_are_sums  a gradient is of         the inner one gets
        True           False           the mean over w tokens   sum w g / sum w
        True           True            the sum over w tokens    sum g / sum w
        False          False           the mean over w tokens   sum w g
        False          True            the sum over w tokens    sum g

    A gradient of weight 0 adds nothing, be it NaN. Where all gradients of a step had
    weight 0, the step waits for one that has more.

    Args:
      inner: A transformation.
      steps: How many gradients one step is made of, >= 1; or a function of the emitted
        steps so far, whose values are rounded (below 1 is 1).
      use_grad_mean: Whether it gets the mean of them, or the sum.
      grads_are_sums: Whether each gradient is a sum over what its weight counts.
      should_skip_update_fn: ``f(updates, gradient_step, params)`` gives whether this
        gradient is skipped (or a tuple of that and anything), such as
        `skip_not_finite`. What is skipped did not happen: the step waits for another.
        It is counted in the state, as ``skipped`` and ``total_skipped``.
      accumulator_dtype: What the sum is stored in; None is float32 or wider.

    Returns:
      A transformation. Extra arguments of the last gradient go to the inner one; if
      that takes a weight too, it gets the sum of them.

    Raises:
      ValueError: ``steps`` is below 1.
      TypeError: ``steps`` is neither a whole number nor a function of the step.

    Equal to ``optax.MultiSteps``, and to Keras's ``gradient_accumulation_steps`` but
    for its schedules, which count gradients where these count steps; see
    `micro_step_schedule`.

    >>> import jopt
    >>> tx = jopt.accumulate(jopt.sgd(1.0), steps=2)
    >>> state, params = tx.init(jnp.ones(1)), jnp.ones(1)
    >>> for g in (1.0, 3.0):
    ...     updates, state = tx.update(jnp.full(1, g), state, params)
    ...     print(updates)
    [0.]
    [-2.]
    """
    inner = as_transformation(inner, "accumulate: inner")
    every = whole_numbers(steps)
    check_skip(should_skip_update_fn)

    def init(params):
        tree_checks.leaves(jax.tree.leaves(params), params, "params")
        sums = jax.tree.map(zeros(accumulator_dtype).init, params)

        def zero():  # each a buffer of its own, so all can be donated
            return jnp.zeros((), jnp.int32)

        own = inner.init(params)
        return AccumulateState(zero(), zero(), own, sums, scalar(0), zero(), zero())

    def added(updates, state, params, weight):
        """The state with one gradient more, and whether that was skipped."""
        _check(updates, state, weight)
        skip = skips(should_skip_update_fn, updates, state.gradient_step, params)
        leaves, treedef, sums = _aligned(updates, state)
        new = list(sums)
        for i, g in enumerate(leaves):
            if g is not None:
                try:
                    new[i] = _added(sums[i], g, weight, skip, not grads_are_sums)
                except Exception as error:
                    tree_checks.note_leaf(error, updates, i)
                    raise
        w = scalar(1 if weight is None else weight)
        taken = state._replace(
            mini_step=tree.safe_increment(state.mini_step),
            total_weight=state.total_weight + w,
            acc_grads=treedef.unflatten(new),
        )
        if skip is None:
            return taken, False
        return taken._replace(
            mini_step=jnp.where(skip, state.mini_step, taken.mini_step),
            total_weight=jnp.where(skip, state.total_weight, taken.total_weight),
            skipped=state.skipped + skip.astype(jnp.int32),
            total_skipped=jnp.where(
                skip, tree.safe_increment(state.total_skipped), state.total_skipped
            ),
        ), skip

    def emitted(like, state, params, extra):
        """The inner step, with updates in the dtypes of ``like``."""
        leaves, treedef, sums = _aligned(like, state)
        divisor = state.total_weight if use_grad_mean else None
        # The inner transformation gets the sums as wide as they are computed.
        grads = [
            None if g is None else _divided(s, divisor)
            for s, g in zip(sums, leaves, strict=True)
        ]
        new, own = inner.update(
            treedef.unflatten(grads), state.inner_opt_state, params, **extra
        )
        new = [
            None if g is None else u.astype(g.dtype)
            for u, g in zip(treedef.flatten_up_to(new), leaves, strict=True)
        ]
        # Zeros that are made, not 0 * acc: what was not finite must not stay.
        return treedef.unflatten(new), state._replace(
            mini_step=jnp.zeros_like(state.mini_step),
            gradient_step=tree.safe_increment(state.gradient_step),
            inner_opt_state=own,
            acc_grads=_zeros(state.acc_grads),
            total_weight=jnp.zeros_like(state.total_weight),
            skipped=jnp.zeros_like(state.skipped),
        )

    def update(updates, state, params=None, weight=None, **extra):
        now, skip = added(updates, state, params, weight)
        if weight is not None and "weight" in inner.needs.accepts:
            extra["weight"] = now.total_weight
        due = now.mini_step >= every(now.gradient_step)
        due = due & (now.total_weight != 0) & jnp.logical_not(skip)
        arrays = {n: x for n, x in extra.items() if _is_data(x)}
        functions = {n: x for n, x in extra.items() if n not in arrays}

        def step(carry, given):
            (like, own), (params, arrays) = carry, given
            return emitted(like, own, params, functions | arrays)

        return once_if(due, step, (_zeros(updates), now), (params, arrays))

    def emit(state, params, extra):
        # With nothing to divide by, the step is computed and dropped: selections are
        # part of the inner kernels, and a conditional is none.
        some = state.total_weight != 0
        known = state._replace(
            total_weight=jnp.where(some, state.total_weight, scalar(1))
        )
        like = state.acc_grads if params is None else params
        new = emitted(like, known, params, extra)
        old = (_zeros(new[0]), state)
        return jax.tree.map(lambda x, y: jnp.where(some, x, y), new, old)

    def readout(state, params):
        return eval_params(inner, state.inner_opt_state, params)

    return Accumulation(
        init,
        update,
        children={"inner_opt_state": inner},
        needs=Needs(
            inner.needs.accepts | {"params", "weight"},
            frozenset(),
            inner.needs.anything,
        ),
        readout=readout if has_readout(inner) else None,
        add=added,
        emit=emit,
    )


def _check(updates: Updates, state: Any, weight: Any) -> None:
    if not isinstance(state, AccumulateState):
        raise TypeError(
            "accumulate expects the state that its init made, an AccumulateState, but "
            f"got {abbreviated(state)}. The order is update(updates, state, "
            "params)."
        )
    tree_checks.leaves(jax.tree.leaves(updates), updates, "updates")
    if weight is not None:
        arguments.one_number("weight", weight)
        arguments.nonnegative(weight=weight)


def _aligned(whole: Any, state: AccumulateState) -> tuple[list[Any], Any, list[Any]]:
    leaves, treedef = jax.tree.flatten(whole, is_leaf=lambda x: x is None)
    kept, name = state.acc_grads, "the state's acc_grads"
    return leaves, treedef, tree_checks.aligned(whole, leaves, treedef, kept, name)


@functools.partial(jax.jit, static_argnums=4)
def _added(
    total: jax.Array, g: jax.Array, weight: Any, skip: Any, times: bool
) -> jax.Array:
    tree_checks.dtypes(g, total)
    wide = np.promote_types(tree.compute_dtype(total.dtype), g.dtype)
    g = g.astype(wide)
    if weight is not None:
        w = jnp.asarray(weight).astype(wide)
        g = jnp.where(w == 0, jnp.zeros_like(g), w * g if times else g)
    new = (total.astype(wide) + g).astype(total.dtype)
    return new if skip is None else jnp.where(skip, total, new)


@jax.jit
def _divided(total: jax.Array, divisor: jax.Array | None) -> jax.Array:
    total = total.astype(tree.compute_dtype(total.dtype))
    return total if divisor is None else total / divisor.astype(total.dtype)


def _zeros(whole: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, whole)


def _is_data(x: Any) -> bool:
    """Whether it is arrays and numbers, which can be an operand, and no function."""
    return all(
        isinstance(leaf, jax.Array | np.ndarray | np.generic | Number)
        for leaf in jax.tree.leaves(x)
    )
