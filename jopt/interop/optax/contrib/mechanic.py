"""Mechanic of ``optax.contrib``, which is another algorithm than `jopt.mechanize`.

D_t <- (x_0 - x) / (s_1 + ... + s_n + eps)          minus the sum of the steps
h   <- <g + lambda (s_1 + ... + s_n) |g| x / (|x| + eps), D_t>
r_i <- beta_i r_i + clip(h, -m_i, m_i) s_i            may become negative
m_i <- max(beta_i m_i, |h| + eps)
v_i <- beta_i^2 v_i + h^2
s_i <- (m_i s_init / n + max(r_i, 0)) / (sqrt(v_i) + eps)
x   <- x_0 - (s_1 + ... + s_n) (D_t - u)              with beta_i = 0.9, 0.99, …
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt import tree
from jopt.interop.optax.base import NO_PARAMS_MSG, Numeric, Pair, as_pair, own


class MechanicState(NamedTuple):
    """State of `mechanize`."""

    base_optimizer_state: Any
    count: Any
    r: Any
    m: Any
    v: Any
    s: Any
    x0: Any


def mechanize(
    base_optimizer: Any,
    weight_decay: Numeric = 1e-2,
    eps: Numeric = 1e-8,
    s_init: Numeric = 1e-6,
    num_betas: int = 6,
) -> Pair:
    """Learn the scale of an optimizer's steps, by optax's form of Mechanic.

    Args:
      base_optimizer: An optimizer with a learning rate of 1, or a schedule with peak 1.
      weight_decay: lambda in the formulas above.
      eps: Added to denominators, and to ``|h|``.
      s_init: The first value of each ``s_i``.
      num_betas: Number of decays 0.9, 0.99, 0.999, …

    Returns:
      A transformation that needs params.
    """
    base = as_pair(base_optimizer, "mechanize: base_optimizer")

    def init(params):
        zeros = jnp.zeros(num_betas, tree.dtype(params, "lowest"))
        return MechanicState(
            base_optimizer_state=base.init(params),
            count=jnp.zeros((), jnp.int32),
            r=zeros,
            m=jnp.copy(zeros),
            v=jnp.copy(zeros),
            s=jnp.ones_like(zeros) * s_init,
            x0=params,
        )

    def update(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        steps, base_state = base.update(
            updates, state.base_optimizer_state, params, **extra_args
        )
        # The first step starts from the params at hand, which may not be those of init.
        x0 = tree.where(state.count == 0, params, state.x0)
        factor = jnp.sum(state.s)
        sums = tree.scale(1 / (factor + eps), tree.sub(x0, params))
        decay = weight_decay * factor * tree.norm(updates) / (tree.norm(params) + eps)
        h = tree.vdot(tree.add_scale(updates, decay, params), sums)

        dtype = state.s.dtype
        h = h.astype(dtype)
        betas = jnp.asarray([1 - 0.1**i for i in range(1, num_betas + 1)], dtype)
        r = betas * state.r + jnp.clip(h, -state.m, state.m) * state.s
        m = jnp.maximum(betas * state.m, jnp.abs(h) + eps)
        v = betas**2 * state.v + h**2
        s = (s_init / num_betas * m + jnp.maximum(r, 0)) / (jnp.sqrt(v) + eps)

        new_sums = tree.sub(sums, steps)
        new_params = tree.add_scale(x0, -jnp.sum(s), new_sums)
        return tree.sub(new_params, params), MechanicState(
            base_optimizer_state=base_state,
            count=tree.safe_increment(state.count),
            r=r.astype(dtype),
            m=m.astype(dtype),
            v=v.astype(dtype),
            s=s.astype(dtype),
            x0=x0,
        )

    return own(init, update)
