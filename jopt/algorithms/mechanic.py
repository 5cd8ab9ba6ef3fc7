"""Mechanic: learn the scale of any optimizer's steps.

    D_t <- u_1 + ... + u_(t-1)                         sum of the optimizer's steps
    h   <- <g + lambda (s_1 + ... + s_n) |g| x / |x|, D_t>
    m_i <- max(beta_i m_i, |h|)
    v_i <- beta_i^2 v_i + h^2
    r_i <- max(beta_i r_i - s_i h, 0)
    s_i <- (m_i s_init / n + r_i) / (sqrt(v_i) + eps)
    x   <- x_0 + (s_1 + ... + s_n) D_(t+1)             with beta_i = 0.9, 0.99, 0.999, …

Cutkosky, Defazio & Mehta, "Mechanic: a learning rate tuner", 2023.

State: the optimizer's, and 4 bytes per float32 parameter for the initial point, 8 with
``store_delta``. Give the optimizer a learning rate of 1, or a schedule with peak 1. It
works for SGD, momentum, Adam and Lion.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.distance import each, inner, root, total
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.leafwise import copied, zeros
from jopt.core.leaves import Leaves
from jopt.core.order import check_changeable, must_be_last
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
)
from jopt.core.treatment import Treatment
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class MechanicState(NamedTuple):
    """State of `mechanize`."""

    base_optimizer_state: Any  # state of base_optimizer
    count: jax.Array  # int32 scalar, updates so far
    r: jax.Array  # (n,) float32, rewards
    m: jax.Array  # (n,) float32, largest |h| so far, decayed
    v: jax.Array  # (n,) float32, decayed sums of h^2
    s: jax.Array  # (n,) float32, their sum is the factor
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
    """Mechanic: replace an optimizer's learning rate by a factor that is learned.

        x <- x_0 + s (u_1 + ... + u_t)

    The steps ``u`` of the optimizer are summed, and the factor ``s`` of the sum adapts
    online. Give the optimizer a learning rate of 1, or a schedule with peak 1.

    Args:
      base_optimizer: The optimizer whose steps are scaled.
      weight_decay: lambda, >= 0; it limits the factor where the steps enlarge the
        parameters.
      eps: Added to denominators, > 0.
      s_init: Sets the first factor, > 0: about ``100 s_init`` with the default ``eps``.
      num_betas: Number of decays 0.9, 0.99, 0.999, …, 1 to 16.
      store_delta: If True, store ``D_t``. Otherwise compute it as ``(x - x_0)`` divided
        by the factor, which has no accurate digits until the parameters have moved
        noticeably in their dtype: store it for bfloat16 parameters.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is out of range, or ``base_optimizer`` averages parameters.

    Equal to the authors' package without ``weight_decay``, for which the package uses x
    after the optimizer's step, and the paper x before it. optax (0.2.8) is a different
    algorithm: it clips h, lets r become negative, and starts at ``s_init`` (1e-6).

    >>> import jopt
    >>> tx, params = jopt.mechanize(jopt.sgd(1.0)), jnp.zeros(2)
    >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
    >>> -1e-6 < float(updates[0]) < 0.0
    True
    """
    base = as_transformation(base_optimizer, "mechanize: base_optimizer")
    check_changeable("mechanize", base)
    if must_be_last(base):
        raise ValueError(
            "mechanize scales the steps of base_optimizer, so an average or a "
            "projection inside it is not one of the parameters. Put it after "
            f"mechanize. Got {base!r}"
        )
    arguments.nonnegative(weight_decay=weight_decay)
    arguments.positive(eps=eps, s_init=s_init)
    arguments.at_least(1, num_betas=num_betas)
    arguments.at_most(16, num_betas=num_betas)  # 1 - 0.1**17 is 1

    def init(params):
        start = jnp.zeros(num_betas, tree.scalar_dtype())
        return MechanicState(
            base_optimizer_state=base.init(params),
            count=jnp.zeros((), jnp.int32),
            r=start,
            m=start + 1e-6,  # the authors' start
            v=jnp.copy(start),  # a buffer of its own, so that the state can be donated
            s=jnp.copy(start),
            x0=jax.tree.map(copied().init, params),
            delta=jax.tree.map(zeros().init, params) if store_delta else None,
        )

    def update(updates, state, params, **extra):
        leaves = Leaves(updates)
        leaves.aligned(params, "params")
        leaves.aligned(state.x0, "the state's x0")
        # Steps in the gradients' dtype would be rounded before they are scaled.
        grads = leaves.widened()
        steps, base_state = base.update(
            grads, state.base_optimizer_state, params, **extra
        )

        factor = jnp.sum(state.s)
        delta = state.delta
        if not store_delta:
            differences = each(_difference, params, state.x0, factor=factor + eps)
            delta = leaves.tree(differences)
        decay = tree.ratio(
            weight_decay * factor * tree.norm(grads), tree.norm(params) + eps, eps
        )
        h = total(inner, grads, delta) + decay * total(inner, params, delta)
        # Keeps h^2, and sums of a million of them, from overflowing.
        largest = jnp.sqrt(jnp.finfo(h.dtype).max) * 1e-3
        # NaN in one step must not stay in the running maxima and sums.
        h = jnp.where(jnp.isnan(h), 0, jnp.clip(h, -largest, largest))

        betas = jnp.asarray([1 - 0.1**i for i in range(1, num_betas + 1)], h.dtype)
        m = jnp.maximum(betas * state.m, jnp.abs(h))
        v = betas**2 * state.v + h * h
        r = jnp.maximum(betas * state.r - state.s * h, 0)
        s = tree.ratio(s_init / num_betas * m + r, root(v) + eps, eps)

        changes = each(_change, params, state.x0, delta, steps, factor=jnp.sum(s))
        if store_delta:
            added = leaves.tree(each(operator.add, delta, steps))
            delta = jax.tree.map(_stored, added, delta, is_leaf=_is_none)
        return leaves.rounded(leaves.tree(changes)), MechanicState(
            base_optimizer_state=base_state,
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
        init,
        update,
        children={"base_optimizer_state": base},
        needs=needs,
        state_class=MechanicState,
        treatment=Treatment(factor=(math.nan,)),
    )


def _is_none(x: Any) -> bool:
    return x is None


def _difference(x: jax.Array, x0: jax.Array, *, factor: jax.Array) -> jax.Array:
    return tree.ratio(x - x0, factor)


def _change(
    x: jax.Array, x0: jax.Array, delta: jax.Array, step: jax.Array, *, factor: jax.Array
) -> jax.Array:
    """Return the change of ``x`` that leads to ``x0`` plus the scaled sum of steps."""
    return x0 + factor * (delta + step) - x


def _stored(added: jax.Array | None, old: jax.Array) -> jax.Array:
    return old if added is None else added.astype(old.dtype)
