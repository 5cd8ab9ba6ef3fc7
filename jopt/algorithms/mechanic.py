"""Mechanic: learn the factor that the steps of any optimizer need.

    D_t <- u_1 + ... + u_(t-1)                         what the optimizer has added up
    h   <- <g + lambda (s_1 + ... + s_n) |g| x / |x|, D_t>
    m_i <- max(beta_i m_i, |h|)
    v_i <- beta_i^2 v_i + h^2
    r_i <- max(beta_i r_i - s_i h, 0)
    s_i <- (m_i s_init / n + r_i) / (sqrt(v_i) + eps)
    x   <- x_0 + (s_1 + ... + s_n) D_(t+1)             with beta_i = 0.9, 0.99, 0.999, …

Cutkosky, Defazio & Mehta, "Mechanic: a learning rate tuner", 2023.

State: that of the optimizer and 4 bytes per float32 parameter, the initial point; 8
with ``store_delta``. The optimizer gets a learning rate of 1, or a schedule whose
largest value is 1. It works for SGD, momentum, Adam and Lion.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.distance import each, inner, root, total
from jopt.core import tree_checks
from jopt.core.chain import as_transformation
from jopt.core.eval_params import has_readout
from jopt.core.factory import transformation
from jopt.core.leafwise import copied, zeros
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
)
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class MechanicState(NamedTuple):
    """State of `mechanize`."""

    base_optimizer_state: Any  # of the optimizer
    count: jax.Array  # int32 scalar, updates so far
    r: jax.Array  # (n,) float32, rewards
    m: jax.Array  # (n,) float32, largest products so far
    v: jax.Array  # (n,) float32, sums of their squares
    s: jax.Array  # (n,) float32, whose sum is the factor
    x0: Any  # initial point, like params
    delta: Any  # D_t, like params; None if it is computed from x0


@transformation
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: ScalarOrSchedule = 1e-2,
    eps: ScalarOrSchedule = 1e-8,
    s_init: ScalarOrSchedule = 1e-8,
    num_betas: int = 6,
    *,
    store_delta: bool = False,
) -> GradientTransformation:
    """Learn the factor of an optimizer's steps.

    Args:
      base_optimizer: The optimizer, with its learning rate around 1.
      weight_decay: lambda, >= 0; it holds the factor down where the steps make the
        parameters larger.
      eps: Keeps divisions from zero, > 0.
      s_init: The first factor is around ``100 s_init`` with this eps, > 0.
      num_betas: How many betas, from 0.9 on.
      store_delta: Whether ``D_t`` is kept. Otherwise it is ``(x - x_0)`` divided by the
        factor, which has no digits as long as the parameters in their dtype have hardly
        moved: keep it if they are bfloat16.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range, or the optimizer averages parameters.

    Equal to the authors' package without ``weight_decay``: with it, the package takes x
    after the optimizer's step, not before as the paper does. optax (0.2.8) is another
    algorithm: it clips h, lets r be negative, and starts at ``s_init`` itself (1e-6).

    >>> import jopt
    >>> tx, params = jopt.mechanize(jopt.sgd(1.0)), jnp.zeros(2)
    >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
    >>> -1e-6 < float(updates[0]) < 0.0
    True
    """
    base = as_transformation(base_optimizer, "mechanize: base_optimizer")
    if has_readout(base):
        raise ValueError(
            "mechanize scales the steps of base_optimizer, so an average inside would "
            f"not be one of the parameters; put it after mechanize. Got {base!r}"
        )
    arguments.nonnegative(weight_decay=weight_decay)
    arguments.positive(eps=eps, s_init=s_init)
    arguments.at_least(1, num_betas=num_betas)

    def init(params):
        start = jnp.zeros(num_betas, tree.scalar_dtype())
        return MechanicState(
            base_optimizer_state=base.init(params),
            count=jnp.zeros((), jnp.int32),
            r=start,
            m=start + 1e-6,
            v=jnp.copy(start),
            s=jnp.copy(start),
            x0=jax.tree.map(copied().init, params),
            delta=jax.tree.map(zeros().init, params) if store_delta else None,
        )

    def update(updates, state, params, **extra):
        leaves, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
        tree_checks.leaves(leaves, updates, "updates")
        for name, other in (("params", params), ("the state's x0", state.x0)):
            tree_checks.aligned(updates, leaves, treedef, other, name)
        # In the gradients' dtype, the steps would be rounded before they are scaled.
        grads = treedef.unflatten(each(_same, updates))
        steps, own = base.update(grads, state.base_optimizer_state, params, **extra)

        factor = jnp.sum(state.s)
        delta = state.delta
        if not store_delta:
            found = each(_difference, params, state.x0, factor=factor + eps)
            delta = treedef.unflatten(found)
        pull = weight_decay * factor * tree.norm(grads) / (tree.norm(params) + eps)
        h = total(inner, grads, delta) + pull * total(inner, params, delta)
        # Larger squares, and sums of a million of them, do not fit.
        largest = jnp.sqrt(jnp.finfo(h.dtype).max) * 1e-3
        h = jnp.where(jnp.isnan(h), 0, jnp.clip(h, -largest, largest))

        betas = jnp.asarray([1 - 0.1**i for i in range(1, num_betas + 1)], h.dtype)
        m = jnp.maximum(betas * state.m, jnp.abs(h))
        v = betas**2 * state.v + h * h
        r = jnp.maximum(betas * state.r - state.s * h, 0)
        s = (s_init / num_betas * m + r) / (root(v) + eps)

        ends = each(_end, params, state.x0, delta, steps, factor=jnp.sum(s))
        updates = [
            x if x is None else x.astype(jnp.result_type(g))
            for x, g in zip(ends, leaves, strict=True)
        ]
        if store_delta:
            added = treedef.unflatten(each(operator.add, delta, steps))
            delta = jax.tree.map(_newest, added, delta, is_leaf=_is_none)
        return treedef.unflatten(updates), MechanicState(
            base_optimizer_state=own,
            count=tree.safe_increment(state.count),
            r=r,
            m=m,
            v=v,
            s=s,
            x0=state.x0,
            delta=delta if store_delta else None,
        )

    needs = Needs(
        base.needs.accepts | {"params"}, frozenset({"params"}), base.needs.anything
    )
    return GradientTransformation(
        init, update, children={"base_optimizer_state": base}, needs=needs
    )


def _is_none(x: Any) -> bool:
    return x is None


def _same(x: jax.Array) -> jax.Array:
    return x


def _difference(x: jax.Array, x0: jax.Array, *, factor: jax.Array) -> jax.Array:
    return (x - x0) / factor


def _end(
    x: jax.Array, x0: jax.Array, delta: jax.Array, step: jax.Array, *, factor: jax.Array
) -> jax.Array:
    return x0 + factor * (delta + step) - x


def _newest(added: jax.Array | None, old: jax.Array) -> jax.Array:
    return old if added is None else added.astype(old.dtype)
