"""Lookahead: k steps forward, one step back.

    fast <- fast + u                      every step, u of another optimizer
    slow <- slow + alpha (fast - slow)    every k steps, and then fast <- slow

The parameters are ``fast``, where gradients are taken; `jopt.eval_params` returns
``slow``. Zhang, Lucas, Hinton & Ba, "Lookahead optimizer: k steps forward, 1 step
back", 2019.

State: 4 bytes per float32 parameter on top of the inner optimizer's. The paper uses
k = 5 or 10 and alpha = 0.5 or 0.8, and finds that the inner optimizer becomes less
sensitive to its learning rate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.eval_params import has_readout
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied
from jopt.core.leaves import Leaves, densified
from jopt.core.order import check_changeable
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
)
from jopt.core.wide_slots import with_slots
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.in_place import either


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    fast_state: Any  # state of the fast optimizer
    steps_since_sync: jax.Array  # int32 scalar, in [0, sync_period)
    slow: Any  # the slow parameters, like params


@transformation
def lookahead(
    fast_optimizer: GradientTransformation,
    sync_period: int = 5,
    slow_step_size: ScalarOrSchedule = 0.5,
    reset_state: bool = False,
    *,
    slow_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Pull the parameters back to slow parameters every few steps.

        u <- u - (1 - slow_step_size) (p + u - slow)   at every sync_period-th step

    Args:
      fast_optimizer: An optimizer.
      sync_period: Number of fast steps between pulls, >= 1.
      slow_step_size: Fraction of the way to the fast parameters that the slow ones
        move, in [0, 1].
      reset_state: Whether to reset the state of ``fast_optimizer`` after each pull.
        Numbers that were set, and learning rate schedules, continue.
      slow_dtype: Storage dtype of ``slow``; None means float32 or wider.

    Returns:
      A transformation for the end of a chain; it needs params.

    Raises:
      ValueError: A number is out of range, or ``fast_optimizer`` itself averages
        parameters.

    Zhang, Lucas, Hinton & Ba, "Lookahead optimizer: k steps forward, 1 step back",
    2019. Equal to ``optax.lookahead``, which takes fast and slow parameters as a pair
    and restarts schedules on a reset.

    >>> import jopt
    >>> tx, params = jopt.lookahead(jopt.sgd(1.0), sync_period=2), jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> params, jopt.eval_params(tx, state, params)
    (Array([-2.], dtype=float32), Array([-1.], dtype=float32))
    """
    inner = as_transformation(fast_optimizer, "lookahead: fast_optimizer")
    check_changeable("lookahead", inner)
    if has_readout(inner):
        raise ValueError(
            "lookahead moves the parameters after fast_optimizer, so an average inside "
            "it would miss these moves. Put the average after lookahead in a chain. "
            f"Got {inner!r}"
        )
    arguments.at_least(1, sync_period=sync_period)
    arguments.fraction(slow_step_size=slow_step_size)
    slow_slot = copied(slow_dtype)

    def init(params):
        Leaves(params, "params")
        slow = slow_slot.initial(params)
        return LookaheadState(inner.init(params), jnp.zeros((), jnp.int32), slow)

    def update(updates, state, params, **extra):
        leaves = Leaves(densified(updates))
        params_leaves = leaves.aligned(params, "params")
        slows = leaves.aligned(state.slow, "the state's slow")
        # Wide gradients give wide steps, which are not rounded before the pull.
        steps, fast_state = inner.update(
            leaves.widened(), state.fast_state, params, **extra
        )
        count = state.steps_since_sync + 1
        due = count == sync_period
        pairs = [
            (None, slow) if g is None else _pull(g, u, p, slow, due, slow_step_size)
            for g, u, p, slow in zip(
                leaves.values,
                leaves.treedef.flatten_up_to(steps),
                params_leaves,
                slows,
                strict=True,
            )
        ]
        new, slow = (leaves.tree([pair[i] for pair in pairs]) for i in range(2))
        if reset_state:

            def reset(fast_state):
                fresh = inner.init(apply_updates(params, new))
                return _with_hyperparameters(inner, fast_state, fresh)

            fast_state = either(due, reset, lambda x: x, fast_state)
        return new, LookaheadState(fast_state, jnp.where(due, 0, count), slow)

    def readout(state, params):
        def slow(p, slow):
            return p if p is None or slow is None else slow.astype(p.dtype)

        return jax.tree.map(slow, params, state.slow, is_leaf=lambda x: x is None)

    needs = Needs(
        inner.needs.accepts | {"params"}, frozenset({"params"}), inner.needs.anything
    )
    children = {"fast_state": inner}
    tx = GradientTransformation(
        init,
        update,
        children=children,
        needs=needs,
        state_class=LookaheadState,
        readout=readout,
    )
    return with_slots(tx, LookaheadState, slow=slow_slot)


@jax.jit
def _pull(
    g: jax.Array,
    u: jax.Array,
    p: jax.Array,
    slow: jax.Array,
    due: jax.Array,
    slow_step_size: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the update, in the dtype of ``g``, and the slow parameters."""
    dtype = np.promote_types(*(tree.compute_dtype(x.dtype) for x in (p, u)))
    u, alpha = u.astype(dtype), jnp.asarray(slow_step_size, dtype)
    old_slow = slow.astype(dtype)
    ahead = p.astype(dtype) + u - old_slow
    return (
        jnp.where(due, u - (1 - alpha) * ahead, u).astype(g.dtype),
        jnp.where(due, old_slow + alpha * ahead, old_slow).astype(slow.dtype),
    )


def _with_hyperparameters(tx: GradientTransformation, state: Any, fresh: Any) -> Any:
    """Return the fresh state with the set or scheduled numbers of the old one."""
    renewed: Any = fresh
    is_dict = isinstance(fresh, dict)
    for name, inner in tx.children.items():
        if not is_dict:
            pair = getattr(state, name), getattr(renewed, name)
            inner_state = _with_hyperparameters(inner, *pair)
            renewed = renewed._replace(**{name: inner_state})
        elif name in renewed:
            inner_state = _with_hyperparameters(inner, state[name], renewed[name])
            renewed = {**renewed, name: inner_state}
    if tx.changing is None:
        return renewed
    # A state without slots of its own has its count for the schedules, which continue.
    names = tx.changing.names if type(state).base else state._fields
    return renewed._replace(**{name: getattr(state, name) for name in names})
