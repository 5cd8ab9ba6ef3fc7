"""Parts of a state that start anew: chosen slots, and all step counts."""

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
from jopt.tree.paths import aligned
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# The fields that count steps; others count what happened in a row, or within a step.
STEP_COUNTS = ("count", "gradient_step", "step")


def reset(
    tx: GradientTransformation, state: OptState, params: Params, where: Mask
) -> OptState:
    """A state whose chosen arrays are those of ``tx.init(params)``.

    Args:
      tx: The transformation the state belongs to.
      state: Its state.
      params: The parameters now; a slot that starts as their copy does so again.
      where: The arrays of the state: a regular expression on the path, such as
        ``"/head/"`` for what is kept for one layer, ``"^scale_by_adam/nu"`` for one
        slot, or another mask of a tree like the state; see `jopt.Mask`.

    Returns:
      A state of the same structure, shapes, dtypes and shardings.

    Raises:
      ValueError: The mask chooses nothing, or this is not a state of ``tx`` for these
        parameters.

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
            f"where={abbreviated(where)} chooses nothing of the state, whose "
            f"paths are {[path for path, _ in tree.leaves_with_names(state)]}"
        )
    old, treedef = jax.tree.flatten(state, is_leaf=tree.is_leaf)
    new = aligned("the state", state, "tx.init(params)", initial)
    for (path, x), y in zip(tree.leaves_with_names(state, none=True), new, strict=True):
        types = [(jnp.shape(z), jnp.result_type(z)) for z in (x, y) if z is not None]
        if len(set(types)) > 1:
            raise ValueError(
                f"this is not a state of these parameters: {path!r} is {types[0]}, and "
                f"in tx.init(params) {types[1]}"
            )
    return treedef.unflatten(
        _where(x, y) if on else x for x, y, on in zip(old, new, chosen, strict=True)
    )


def set_counts(state: OptState, n: int | jax.Array) -> OptState:
    """A state in which every step count is ``n``.

    After it, schedules and bias corrections are at that step, wherever they are kept.

    Args:
      state: The state of any transformation, however nested.
      n: The number of steps that have been taken, >= 0; may be traced.

    Returns:
      A state of the same structure, shapes, dtypes and shardings. The counts are the
      fields ``count``, ``step`` (of `conditionally_transform`) and ``gradient_step``
      (of `accumulate`); what else is counted, such as skipped steps, stays. Rows that
      are behind in `catch_up` have missed as many steps as before.

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
    found = [x for x in STEP_COUNTS if tree.get_all_with_path(state, x, _is_count)]
    if not found:
        raise KeyError("the state has no step count")
    new = tree.set(state, _is_count, **dict.fromkeys(found, n))
    for path, own in tree.get_all_with_path(state, "CatchUpState"):
        missed = n - own.count
        last = jax.tree.map(lambda x, missed=missed: x + missed, own.last)
        new = tree.set(new, lambda p, _, path=path: p[:-1] == path, last=last)
    return jax.tree.map(_where, state, new)


def _is_count(path: Any, value: Any) -> bool:
    del path
    return jnp.issubdtype(getattr(value, "dtype", jnp.float32), jnp.integer)


def _where(old: Any, new: Any) -> Any:
    """The new array, on the devices of the old one."""
    if isinstance(old, Tracer) or not getattr(old, "committed", False):
        return new
    return jax.device_put(new, old.sharding)
