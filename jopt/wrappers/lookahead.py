"""Lookahead: k steps forward, one step back.

    fast <- fast + u                      every step, u of another optimizer
    slow <- slow + alpha (fast - slow)    every k steps, and then fast <- slow

The parameters are ``fast``, where gradients are taken; `jopt.eval_params` gives
``slow``. Zhang, Lucas, Hinton & Ba, "Lookahead optimizer: k steps forward, 1 step
back", 2019.

State: 4 bytes per float32 parameter more than the optimizer it is for. The paper has
k = 5 or 10 and alpha = 0.5 or 0.8, and finds the optimizer inside less sensitive to its
learning rate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import tree_checks
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.eval_params import has_readout
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
)
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    fast_state: Any  # of the optimizer inside
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
    """Pull the parameters back to slow ones every few steps.

        u <- u - (1 - slow_step_size) (p + u - slow)   at every sync_period-th step

    Args:
      fast_optimizer: An optimizer.
      sync_period: How many of its steps there are from one pull to the next, >= 1.
      slow_step_size: How far the slow parameters go towards the fast, in [0, 1].
      reset_state: Whether ``fast_optimizer`` forgets what it keeps after each pull.
        Numbers that were set, and the schedule of a learning rate, go on.
      slow_dtype: What ``slow`` is stored in; None is float32 or wider.

    Returns:
      A transformation, to be the last of a chain; it needs params.

    Raises:
      ValueError: A number is out of its range, or ``fast_optimizer`` averages
        parameters itself.

    Zhang, Lucas, Hinton & Ba, "Lookahead optimizer: k steps forward, 1 step back",
    2019. The numbers are those of ``optax.lookahead``, whose parameters are a pair of
    both; there a reset starts schedules anew.

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
    if has_readout(inner):
        raise ValueError(
            "lookahead moves the parameters after fast_optimizer, so an average inside "
            "would not be one of the parameters; put it after lookahead in a chain. "
            f"Got {inner!r}"
        )
    arguments.at_least(1, sync_period=sync_period)
    arguments.fraction(slow_step_size=slow_step_size)
    slow_slot = copied(slow_dtype)

    def init(params):
        tree_checks.leaves(jax.tree.leaves(params), params, "params")
        slow = jax.tree.map(slow_slot.init, params)
        return LookaheadState(inner.init(params), jnp.zeros((), jnp.int32), slow)

    def update(updates, state, params, **extra):
        leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        tree_checks.leaves(leaves, updates, "updates")
        at, slows = (
            tree_checks.aligned(updates, leaves, treedef, other, name)
            for name, other in (("params", params), ("the state's slow", state.slow))
        )
        # In the gradients' dtype, the steps would be rounded before they are pulled.
        grads = treedef.unflatten(None if g is None else _wide(g) for g in leaves)
        steps, own = inner.update(grads, state.fast_state, params, **extra)
        count = state.steps_since_sync + 1
        now = count == sync_period
        pairs = [
            (None, slow) if g is None else _pulled(g, u, p, slow, now, slow_step_size)
            for g, u, p, slow in zip(
                leaves, treedef.flatten_up_to(steps), at, slows, strict=True
            )
        ]
        new, slow = (treedef.unflatten(pair[i] for pair in pairs) for i in range(2))
        if reset_state:

            def renew(own):
                return _renewed(inner, own, inner.init(apply_updates(params, new)))

            own = jax.lax.cond(now, renew, lambda own: own, own)
        return new, LookaheadState(own, jnp.where(now, 0, count), slow)

    def readout(state, params):
        def slow(p, slow):
            return p if p is None or slow is None else slow.astype(p.dtype)

        return jax.tree.map(slow, params, state.slow, is_leaf=lambda x: x is None)

    needs = Needs(
        inner.needs.accepts | {"params"}, frozenset({"params"}), inner.needs.anything
    )
    children = {"fast_state": inner}
    return GradientTransformation(
        init, update, children=children, needs=needs, readout=readout
    )


def _wide(g: Any) -> jax.Array:
    g = jnp.asarray(g)
    return g.astype(tree.compute_dtype(g.dtype))


@jax.jit
def _pulled(
    g: jax.Array,
    u: jax.Array,
    p: jax.Array,
    slow: jax.Array,
    now: jax.Array,
    slow_step_size: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The update and the slow parameters; g has the dtype of the former."""
    dtype = np.promote_types(*(tree.compute_dtype(x.dtype) for x in (p, u)))
    u, alpha = u.astype(dtype), jnp.asarray(slow_step_size, dtype)
    before = slow.astype(dtype)
    ahead = p.astype(dtype) + u - before
    return (
        jnp.where(now, u - (1 - alpha) * ahead, u).astype(g.dtype),
        jnp.where(now, before + alpha * ahead, before).astype(slow.dtype),
    )


def _renewed(tx: GradientTransformation, state: Any, fresh: Any) -> Any:
    """The fresh state, with those numbers of the old one that users set or schedule."""
    renewed: Any = fresh
    is_dict = isinstance(fresh, dict)
    for name, inner in tx.children.items():
        if not is_dict:
            own = _renewed(inner, getattr(state, name), getattr(renewed, name))
            renewed = renewed._replace(**{name: own})
        elif name in renewed:
            own = _renewed(inner, state[name], renewed[name])
            renewed = {**renewed, name: own}
    if tx.changing is None:
        return renewed
    # A count that is kept for a schedule alone goes on with it.
    kept = tx.changing.names if type(state).base else state._fields
    return renewed._replace(**{name: getattr(state, name) for name in kept})
