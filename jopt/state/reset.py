"""Reset chosen slots of a state, or all its step counts; read how many there were."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jopt import tree
from jopt.core import masks
from jopt.core.chain import as_transformation
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.state.hyperparams import RATE, common, holders
from jopt.tree.paths import aligned
from jopt.tree.variables import sees_arrays
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# The step counts of states that do not declare theirs, such as those of optax.
STEP_COUNTS = ("count", "gradient_step", "step")


@sees_arrays("state")
def reset(
    tx: GradientTransformation, state: OptState, params: Params, where: Mask
) -> OptState:
    """Replace chosen arrays of a state by those of ``tx.init(params)``.

    Step counts stay unless they are chosen too. So the slots of one layer that start
    again in Adam, after 1,000 steps, get almost no bias correction, and the first step
    is 2.5 times the learning rate; a group of its own in `partition` has its own count.

    Args:
      tx: The transformation that the state belongs to.
      state: Its state.
      params: The current parameters; a slot that starts as a copy of them copies these.
      where: The arrays to reset: a regular expression on the path, such as ``"/head/"``
        for the slots of one layer or ``"^scale_by_adam/nu"`` for one slot, or another
        mask of a tree like the state. See `jopt.Mask`.

    Returns:
      A state of the same structure, shapes, dtypes and shardings.

    Raises:
      ValueError: The mask chooses nothing, or ``state`` is not a state of ``tx`` for
        these parameters.

    >>> import jopt
    >>> tx, params = jopt.sgd(0.1, momentum=0.9), {"body": jnp.ones(1), "head": 1.0}
    >>> _, state = tx.update(params, tx.init(params))
    >>> jopt.reset(tx, state, params, "/head$")["trace"].trace
    {'body': Array([1.], dtype=float32), 'head': Array(0., dtype=float32)}
    """
    initial = as_transformation(tx, "reset: tx").init(params)
    chosen = masks.select(where, state)
    if not any(chosen):
        raise ValueError(
            f"where={abbreviated(where)} chooses nothing of the state, which has the "
            f"paths {[path for path, _ in tree.leaves_with_names(state)]}"
        )
    old, treedef = jax.tree.flatten(state, is_leaf=tree.is_leaf)
    new = aligned("the state", state, "tx.init(params)", initial)
    for (path, x), y in zip(tree.leaves_with_names(state, none=True), new, strict=True):
        types = [(jnp.shape(z), jnp.result_type(z)) for z in (x, y) if z is not None]
        if len(set(types)) > 1:
            raise ValueError(
                f"the state does not belong to these parameters: {path!r} is "
                f"{types[0]} in the state and {types[1]} in tx.init(params)"
            )
    return treedef.unflatten(
        _like(x, y) if on else x for x, y, on in zip(old, new, chosen, strict=True)
    )


@sees_arrays("state")
def set_counts(state: OptState, n: int | jax.Array) -> OptState:
    """Set every step count of a state to ``n``.

    All schedules and bias corrections then continue from step ``n``.

    Args:
      state: The state of any transformation, however nested.
      n: The number of steps taken so far, >= 0; may be traced.

    Returns:
      A state of the same structure, shapes, dtypes and shardings. The counts are the
      fields ``count``, ``step`` (of `conditionally_transform`) and ``gradient_step``
      (of `accumulate`). Other counters, such as those of skipped steps, keep their
      values. Rows that `catch_up` has yet to update keep their number of missed steps.

    Raises:
      KeyError: The state has no count.
      ValueError: ``n`` is negative.

    >>> import jopt
    >>> state = jopt.set_counts(jopt.adam(1e-3).init(jnp.ones(2)), 100)
    >>> [int(member.count) for member in state.values()]
    [100, 100]
    """
    if not isinstance(n, jax.Array):
        n = arguments.whole("n", n)
        arguments.at_least(0, n=n)
    arguments.one_number("n", n, jnp.integer)
    counts = _step_counts(state)
    if not counts:
        raise KeyError("the state has no step count")
    new = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, n) if tree.path_name(path) in counts else x,
        state,
    )
    # `last` holds the step at which a row was last updated, so it moves with the count.
    for path, rows_state in tree.get_all_with_path(state, "CatchUpState"):
        shift = n - rows_state.count
        last = jax.tree.map(lambda x, shift=shift: x + shift, rows_state.last)
        new = tree.set(new, lambda p, _, path=path: p[:-1] == path, last=last)
    return jax.tree.map(_like, state, new)


@sees_arrays()
def iterations(state: OptState) -> jax.Array:
    """Return the number of steps that an optimizer has made.

    These are the updates that its learning rate was used for. The gradients that
    `accumulate` adds up are one step, and a step that a guard skips is none. Counts of
    other members, such as that of an average of each gradient, do not matter. Without a
    learning rate, it is the number of emissions of `accumulate`, or else the number
    that all step counts agree on.

    Args:
      state: The state of any optimizer, however nested.

    Returns:
      An int32 scalar. Inside jit, where values are unknown, it is -1 if the counts of
      several learning rates differ.

    Raises:
      KeyError: The state counts no steps, as that of `rprop`; or the counts differ, as
        where one group is updated more rarely. The message lists them.

    >>> import jopt
    >>> tx, params = jopt.accumulate(jopt.adam(1e-3), 2), jnp.ones(2)
    >>> state = tx.init(params)
    >>> for _ in range(5):
    ...     _, state = tx.update(params, state, params)
    >>> jopt.iterations(state)
    Array(2, dtype=int32)
    """
    of_rates, emissions, counts = {}, {}, {}
    for keys, holder in holders(state, "step_counts", STEP_COUNTS):
        for name in _counts_of(holder):
            path = tree.path_name((*keys, jax.tree_util.GetAttrKey(name)))
            counts[path] = getattr(holder, name)
            if RATE in getattr(type(holder), "hyperparameters", ()):
                of_rates[path] = counts[path]
            if name == "gradient_step":
                emissions[path] = counts[path]
    if not counts:
        raise KeyError(
            "the state counts no steps. It has "
            f"{[path for path, _ in tree.leaves_with_names(state)][:8]}"
        )
    return common("iterations", of_rates or emissions or counts, unequal=-1)


def _step_counts(state: OptState) -> set[str]:
    """The paths of all step counts, which the class of a state declares."""
    return {
        tree.path_name((*path, jax.tree_util.GetAttrKey(name)))
        for path, holder in holders(state, "step_counts", STEP_COUNTS)
        for name in _counts_of(holder)
    }


def _counts_of(holder: Any) -> list[str]:
    return [
        name
        for name in getattr(type(holder), "step_counts", STEP_COUNTS)
        if name in holder._fields and _is_integer(getattr(holder, name))
    ]


def _is_integer(field: Any) -> bool:
    # A field of another library's state may share the name and be something else.
    return all(
        jnp.issubdtype(getattr(x, "dtype", jnp.float32), jnp.integer)
        for x in jax.tree.leaves(field)
    )


def _like(old: Any, new: Any) -> Any:
    """Return the new array with the sharding of the old one."""
    if isinstance(old, Tracer) or not getattr(old, "committed", False):
        return new
    return jax.device_put(new, old.sharding)
