"""Sharpness-aware minimization of ``optax.contrib``: a transformation.

`jopt.sam` changes the function of value and gradient instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.apply import apply_updates
from jopt.interop.optax.base import Pair, as_pair, own


class SAMState(NamedTuple):
    """State of `sam`."""

    steps_since_sync: Any
    opt_state: Any
    adv_state: Any
    cache: Any


def sam(
    optimizer: Any,
    adv_optimizer: Any,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> Pair:
    """Step uphill with one optimizer, then step from the start with another.

    Of every ``sync_period`` updates, all but the last move the parameters uphill. The
    last one moves them back to where they were and takes a step of ``optimizer`` there,
    with the gradient from uphill.

    Args:
      optimizer: Takes the steps that stay.
      adv_optimizer: Its steps are taken uphill: ``chain(normalize(), sgd(rho))`` is
        the method of the paper.
      sync_period: Number of gradients for a step that stays, >= 1.
      reset_state: Whether ``adv_optimizer`` starts anew after each of them.
      opaque_mode: Whether one update takes all of them, with
        ``update(updates, state, params, grad_fn=grad_fn)``; ``grad_fn(params, i)``
        returns the gradient after ``i + 1`` steps uphill.
      batch_axis_name: The axis of devices over which to average those gradients.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``sync_period`` is less than 1; from ``update``, ``grad_fn`` is
        missing with ``opaque_mode``.

    Foret, Kleiner, Mobahi & Neyshabur, "Sharpness-aware minimization for efficiently
    improving generalization", 2021.

    >>> from jopt.interop import optax
    >>> uphill = optax.chain(optax.contrib.normalize(), optax.sgd(1.0))
    >>> tx = optax.contrib.sam(optax.sgd(0.1), uphill)
    >>> params = jnp.array([3.0, 4.0])
    >>> tx.update(params, tx.init(params), params)[0]
    Array([0.6, 0.8], dtype=float32)
    """
    if sync_period < 1:
        raise ValueError(f"sync_period must be >= 1, got sync_period={sync_period}")
    outer = as_pair(optimizer, "sam: optimizer")
    inner = as_pair(adv_optimizer, "sam: adv_optimizer")

    def uphill(grads, adv_state, params):
        steps, adv_state = inner.update(grads, adv_state, params)
        return tree.scale(-1, steps), adv_state

    def init(params):
        return SAMState(
            steps_since_sync=jnp.zeros((), jnp.int32),
            opt_state=outer.init(params),
            adv_state=inner.init(params),
            cache=None if opaque_mode else params,
        )

    def one(updates, state, params=None, **extra_args):
        is_first = state.steps_since_sync == 0
        is_last = state.steps_since_sync == sync_period - 1
        adv_updates, adv_state = uphill(updates, state.adv_state, params)
        steps, opt_state = outer.update(updates, state.opt_state, state.cache)
        back = tree.sub(state.cache, params)
        after = inner.init(params) if reset_state else state.adv_state
        return _where(is_last, tree.add(back, steps), adv_updates), SAMState(
            steps_since_sync=(state.steps_since_sync + 1) % sync_period,
            adv_state=_where(is_last, after, adv_state),
            opt_state=_where(is_last, opt_state, state.opt_state),
            cache=_where(is_first, params, state.cache),
        )

    def all_of_them(updates, state, params=None, grad_fn=None, **extra_args):
        if grad_fn is None:
            raise ValueError(
                "with opaque_mode=True, call update(updates, state, params, "
                "grad_fn=grad_fn), where grad_fn(params, i) returns a gradient"
            )
        point, adv_state = params, state.adv_state
        for i in range(sync_period - 1):
            steps, adv_state = uphill(updates, adv_state, point)
            point = apply_updates(point, steps)
            updates = grad_fn(point, i)
            if batch_axis_name is not None:
                updates = jax.lax.pmean(updates, batch_axis_name)
        steps, opt_state = outer.update(updates, state.opt_state, params)
        return steps, SAMState(
            steps_since_sync=jnp.zeros((), jnp.int32),
            opt_state=opt_state,
            adv_state=inner.init(params) if reset_state else adv_state,
            cache=None,
        )

    return own(init, all_of_them if opaque_mode else one)


def _where(condition: jax.Array, if_true: Any, if_false: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), if_true, if_false)
