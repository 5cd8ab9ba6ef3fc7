"""Gradient accumulation: one optimizer step for several gradients.

    acc <- acc + w g,  W <- W + w;   every ``steps`` gradients:  u <- inner(acc / W),
    acc <- 0,  W <- 0

w is the weight of a micro-batch, such as its tokens; without weights it is 1.

State: 4 bytes per float32 parameter on top of the inner transformation's, 1 with
``accumulator_dtype="int8"``. The inner transformation runs, and counts steps, only in
the steps that emit. All other steps read the gradient and the sum and write the sum: 12
bytes per float32 parameter. The contract of ``update`` costs up to 20 more in a
training step: it returns zero updates, which are then added to the parameters.
`jopt.step` avoids this cost, as do `accumulate_grads` and `emit`, and `micro_batch`, if
all micro-batches are available together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.core import tree_checks
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.factory import StorageDtype, transformation
from jopt.core.fused import fused_update
from jopt.core.kernels import streams
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves, densified
from jopt.core.order import check_changeable
from jopt.core.slots import Chance, Slot
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    Place,
    Updates,
)
from jopt.tree import scalar
from jopt.tree.like import zeros_beside
from jopt.values import arguments
from jopt.wrappers.accumulation_steps import (
    check_skip,
    gradients_per_step,
    skip_decision,
)
from jopt.wrappers.in_place import once_if, zeros_after


class AccumulateState(NamedTuple):
    """State of `accumulate`."""

    mini_step: jax.Array  # int32 scalar, gradients added since the last emission
    gradient_step: jax.Array  # int32 scalar, emissions so far
    inner_opt_state: Any  # state of the inner transformation
    acc_grads: Any  # weighted sum of the gradients since then, like params
    total_weight: jax.Array  # float scalar, sum of their weights
    skipped: jax.Array  # int32 scalar, gradients skipped since the last emission
    total_skipped: jax.Array  # int32 scalar, gradients ever skipped

    metrics = ("mini_step", "gradient_step", "total_skipped")
    step_counts = ("gradient_step",)


class Accumulation(GradientTransformation):
    """A transformation made by `accumulate`, with ``update``'s two halves."""

    add: Callable[..., tuple[AccumulateState, Any]]
    emit: Callable[..., tuple[Updates, AccumulateState]]

    def __new__(cls, *args: Any, add: Any, emit: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self.add, self.emit = add, emit
        return self

    def gradient_transformation(self) -> Accumulation:
        """Return the transformation itself; optax's ``MultiSteps`` has this method."""
        return self

    def has_updated(self, state: AccumulateState) -> jax.Array:
        """Return whether the last gradient completed a step; see `jopt.has_updated`."""
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
    """Run a transformation on the mean of several consecutive gradients.

    All other updates are zero. ``update(…, weight=w)`` weights a gradient, for example
    by the number of tokens in its micro-batch; the result then equals that of one large
    batch:

        use_grad_mean  grads_are_sums  gradient of              inner receives
        True           False           the mean over w tokens   sum w g / sum w
        True           True            the sum over w tokens    sum g / sum w
        False          False           the mean over w tokens   sum w g
        False          True            the sum over w tokens    sum g

    A gradient of weight 0 adds nothing, even if it is NaN. If all gradients of a step
    have weight 0, the step waits for one with a positive weight.

    Args:
      inner: A transformation.
      steps: The number of gradients per step, >= 1; or a function of the number of
        emitted steps, whose values are rounded (a value below 1 counts as 1).
      use_grad_mean: If True, ``inner`` receives the mean of the gradients, else the
        sum.
      grads_are_sums: Whether each gradient is a sum over the items that its weight
        counts, instead of a mean.
      should_skip_update_fn: ``f(updates, gradient_step, params)`` returns whether to
        skip this gradient, or a tuple of that bool and anything else; for example
        `skip_not_finite`. A skipped gradient has no effect: the step waits for another.
        The state counts it in ``skipped`` and ``total_skipped``.
      accumulator_dtype: Storage dtype of the sum, or a format, see `scale_by_adam`;
        None means float32 or wider.

    Returns:
      A transformation. Extra arguments of the last gradient are passed to ``inner``; if
      ``inner`` takes a weight too, it receives the sum of the weights.

    Raises:
      ValueError: ``steps`` is below 1.
      TypeError: ``steps`` is neither a whole number nor a function of the step.

    Equal to ``optax.MultiSteps``, and to Keras's ``gradient_accumulation_steps`` except
    for schedules: Keras's count gradients, these count steps; see
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
    check_changeable("accumulate", inner)
    gradients_at = gradients_per_step(steps)
    check_skip(should_skip_update_fn)
    slot = zeros(accumulator_dtype)

    def init(params):
        Leaves(params, "params")
        sums = slot.initial(params)

        def zero():  # a separate buffer for each field, so that all can be donated
            return jnp.zeros((), jnp.int32)

        inner_state = inner.init(params)
        return AccumulateState(
            zero(), zero(), inner_state, sums, scalar(0), zero(), zero()
        )

    def sums_of(leaves, state):
        """The sum of each leaf as it is kept."""
        shapes = [None if g is None else jnp.shape(g) for g in leaves.values]

        def column(x, shapes):
            return leaves.aligned(x, "the state's acc_grads", shapes=shapes)

        sums = slot.loaded("acc_grads", state.acc_grads, shapes, column)
        for i in leaves.present:
            if sums[i] is None:
                tree_checks.no_slot(leaves.whole, i)
        return sums

    def is_sum_of(updates, state):
        """Whether the sums are read in the dtypes of the gradients, and kept so.

        If not, updates are rounded before they are added. A format is read as float32.
        """
        leaves = Leaves(updates)
        sums = sums_of(leaves, state)
        read = functools.partial(_divide_leaf, slot, divisor=None)
        pairs = [(leaves.values[i].dtype, sums[i]) for i in leaves.present]
        return all(
            g == jax.eval_shape(read, total).dtype
            and (slot.format is not None or g == total.dtype)
            for g, total in pairs
        )

    def add(updates, state, params, weight):
        """Return the state with one more gradient, and whether it was skipped."""
        leaves = Leaves(updates)
        _check_weight(weight)
        skip = skip_decision(
            should_skip_update_fn, updates, state.gradient_step, params
        )
        sums = sums_of(leaves, state)
        chances = [None] * len(sums)
        if slot.format is not None:
            # A number for each gradient; those that are skipped leave the sum alone.
            count = state.gradient_step.astype(jnp.uint32) * np.uint32(65537)
            count = count + state.mini_step.astype(jnp.uint32)
            chances = [Chance(count, stream) for stream in streams(leaves.treedef)]
        for i in leaves.present:
            options = chances[i], weight, skip, not grads_are_sums
            try:
                sums[i] = _add_leaf(slot, sums[i], leaves.values[i], *options)
            except Exception as error:
                tree_checks.note_leaf(error, updates, i)
                raise
        w = scalar(1 if weight is None else weight)
        advanced = state._replace(
            mini_step=tree.safe_increment(state.mini_step),
            total_weight=state.total_weight + w,
            acc_grads=slot.stored(leaves.treedef, sums),
        )
        if skip is None:
            return advanced, False
        return advanced._replace(
            mini_step=jnp.where(skip, state.mini_step, advanced.mini_step),
            total_weight=jnp.where(skip, state.total_weight, advanced.total_weight),
            skipped=state.skipped + skip.astype(jnp.int32),
            total_skipped=jnp.where(
                skip, tree.safe_increment(state.total_skipped), state.total_skipped
            ),
        ), skip

    def inner_step(like, state, params, extra, adds=False):
        """Take the inner step; return updates in the dtypes of ``like``, or params."""
        leaves = Leaves(like)
        sums = sums_of(leaves, state)
        divisor = state.total_weight if use_grad_mean else None
        # Not rounded to the gradients' dtypes: that would lose what the wide sum kept.
        grads = leaves.each(lambda _, total: _divide_leaf(slot, total, divisor), sums)
        new, inner_state = fused_update(
            inner, leaves.tree(grads), state.inner_opt_state, params, extra, adds=adds
        )
        # New zeros, not 0 * acc: a NaN or infinity in the sum must not survive.
        if adds:  # in the memory of what the inner step has read
            read = leaves.tree(grads) if slot.format is None else state.acc_grads
            zeros = zeros_after(read, (new, inner_state))
        else:
            zeros, new = _zeros(state.acc_grads), leaves.rounded(new)
        return new, state._replace(
            mini_step=zeros_beside(state.mini_step),
            gradient_step=tree.safe_increment(state.gradient_step),
            inner_opt_state=inner_state,
            acc_grads=zeros,
            total_weight=zeros_beside(state.total_weight),
            skipped=zeros_beside(state.skipped),
        )

    def update(updates, state, params=None, weight=None, *, adds=False, **extra):
        updates = densified(updates)  # the sum is over all rows
        if adds and not is_sum_of(updates, state):
            # The updates are rounded to the gradients' dtypes, and then added.
            updates, state = update(updates, state, params, weight, **extra)
            return apply_updates(params, updates), state
        added, skip = add(updates, state, params, weight)
        if weight is not None and "weight" in inner.needs.accepts:
            extra["weight"] = added.total_weight
        due = added.mini_step >= gradients_at(added.gradient_step)
        due = due & (added.total_weight != 0) & jnp.logical_not(skip)
        # Only arrays can be operands of the loop in once_if.
        arrays = {n: x for n, x in extra.items() if _is_data(x)}
        functions = {n: x for n, x in extra.items() if n not in arrays}

        def step(carry, operands):
            (like, state), (params, arrays) = carry, operands
            return inner_step(like, state, params, functions | arrays)

        def step_of_params(carry, arrays):
            params, state = carry
            extra = functions | arrays
            like = slot.whole(state.acc_grads)
            return inner_step(like, state, params, extra, adds=True)

        leaves = Leaves(updates)
        sums = sums_of(leaves, added)
        if adds:  # in the loop, in place
            return once_if(due, step_of_params, (params, added), arrays)
        holds_updates = slot.format is None and all(
            g is None or _holds(total, g)
            for g, total in zip(leaves.values, sums, strict=True)
        )
        if not isinstance(due, Tracer) or not holds_updates:
            return once_if(due, step, (_zeros(updates), added), (params, arrays))

        # The inner step reads the sum for the last time, so its updates take the sum's
        # memory: updates of their own are as large again, also in the other steps.
        def step_in_sum(state, operands):
            old = sums_of(leaves, state)
            new, state = step((_zeros(updates), state), operands)
            kept = [
                total if u is None else u.astype(total.dtype)
                for u, total in zip(leaves.treedef.flatten_up_to(new), old, strict=True)
            ]
            return state._replace(acc_grads=leaves.tree(kept))

        after = once_if(due, step_in_sum, added, (params, arrays))
        sums = sums_of(leaves, after)
        new = leaves.each(lambda g, total: _if(due, total, jnp.result_type(g)), sums)
        rest = jax.tree.map(lambda x: _if(~due, x, x.dtype), after.acc_grads)
        return leaves.tree(new), after._replace(acc_grads=rest)

    def emit(state, params, extra):
        # If the total weight is 0, the step is computed and discarded: XLA fuses the
        # selections into the inner kernels, which it cannot do with a conditional.
        has_weight = state.total_weight != 0
        divisible = state._replace(
            total_weight=jnp.where(has_weight, state.total_weight, scalar(1))
        )
        like = slot.whole(state.acc_grads) if params is None else params
        new = inner_step(like, divisible, params, extra)
        old = (_zeros(new[0]), state)
        return jax.tree.map(lambda x, y: jnp.where(has_weight, x, y), new, old)

    return Accumulation(
        init,
        update,
        children={"inner_opt_state": inner},
        state_class=AccumulateState,
        needs=Needs(
            inner.needs.accepts | {"params", "weight"},
            frozenset(),
            inner.needs.anything,
        ),
        fused=frozenset({"adds"}),
        place=Place(stepped=lambda old, new: new.gradient_step != old.gradient_step),
        slots={"acc_grads": slot},
        add=add,
        emit=emit,
    )


def _check_weight(weight: Any) -> None:
    if weight is not None:
        arguments.one_number("weight", weight)
        arguments.nonnegative(weight=weight)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _add_leaf(
    slot: Slot,
    kept: Any,
    g: jax.Array,
    chance: Chance | None,
    weight: Any,
    skip: Any,
    multiply: bool,
) -> Any:
    total = slot.load(kept, jnp.float32)
    tree_checks.dtypes(g, total)
    wide = np.promote_types(total.dtype, g.dtype)
    g = g.astype(wide)
    if weight is not None:
        w = jnp.asarray(weight).astype(wide)
        # 0 * NaN is NaN, so a zero weight selects zeros.
        g = jnp.where(w == 0, jnp.zeros_like(g), w * g if multiply else g)
    new = slot.store(total.astype(wide) + g, kept, "acc_grads", chance)
    if skip is None:
        return new
    return jax.tree.map(lambda x, y: jnp.where(skip, x, y), kept, new)


@functools.partial(jax.jit, static_argnums=0)
def _divide_leaf(slot: Slot, kept: Any, divisor: jax.Array | None) -> jax.Array:
    total = slot.load(kept, jnp.float32)
    return total if divisor is None else total / divisor.astype(total.dtype)


def _holds(total: jax.Array, g: Any) -> bool:
    """Return whether a sum can store what has the dtype of the gradient, exactly."""
    dtype = jnp.result_type(g)
    return np.promote_types(total.dtype, dtype) == total.dtype


@functools.partial(jax.jit, static_argnums=2)
def _if(condition: jax.Array, x: jax.Array, dtype: Any) -> jax.Array:
    """Return an array if the condition holds, else zeros."""
    return jax.lax.select(condition, x, jnp.zeros_like(x)).astype(dtype)


def _zeros(whole: Any) -> Any:
    return jax.tree.map(zeros_beside, whole)


def _is_data(x: Any) -> bool:
    """Return whether all leaves of ``x`` are arrays or numbers, not functions."""
    return all(
        isinstance(leaf, jax.Array | np.ndarray | np.generic | Number)
        for leaf in jax.tree.leaves(x)
    )
