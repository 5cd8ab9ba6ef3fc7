"""ASGD: gradient descent that also averages the parameters.

    eta <- learning_rate / (1 + lambd learning_rate (t - 1))^alpha
    p   <- (1 - lambd eta) p - eta g
    ax  <- ax + (p - ax) / max(1, t - 1 - t0)

Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992. This
form, for a loss with the penalty ``lambd / 2 |p|^2``, is from Xu, "Towards optimal one
pass large scale learning with averaged stochastic gradient descent", 2011.

State: 4 bytes per float32 parameter. Train with the parameters and evaluate with their
average, `jopt.eval_params`. Set ``t0`` to the number of steps of an epoch or two: if
training stops before step ``t0``, the average is only a copy of the parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core.chain import optimizer
from jopt.core.factory import StorageDtype
from jopt.core.leafwise import copied, leafwise
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class AsgdState(NamedTuple):
    """State of `asgd`."""

    count: jax.Array  # int32 scalar, updates so far
    ax: Any  # average of the parameters, like params


class LateAsgdState(NamedTuple):
    """State of `asgd` with ``late_rate``."""

    count: jax.Array  # int32 scalar, updates so far
    ax: Any  # average of the parameters, like params
    eta: jax.Array  # float scalar, step size of the next update, unless it is the first


@optimizer
def asgd(
    learning_rate: ScalarOrSchedule,
    lambd: ScalarOrSchedule = 1e-4,
    alpha: ScalarOrSchedule = 0.75,
    t0: ScalarOrSchedule = 1e6,
    *,
    ax_dtype: StorageDtype | None = None,
    late_rate: bool = False,
) -> GradientTransformation:
    """Averaged stochastic gradient descent; ``ax`` in the state is the average.

    Args:
      learning_rate: The first step size, >= 0; torch's default is 0.01.
      lambd: Weight decay, >= 0, multiplied by the step size. It also sets how fast the
        step size decays.
      alpha: Exponent of the step size's decay, >= 0.
      t0: Step after which averaging starts, >= 0; until then ``ax`` is a copy of the
        latest parameters.
      ax_dtype: Storage dtype of ``ax``; None means float32 or wider. In bfloat16, an
        average over more than 256 steps stops changing.
      late_rate: Whether a new learning rate, from a schedule or set in the state, takes
        effect one step late. In torch it does, because a step computes the step size of
        the next one, which is then part of the state.

    Returns:
      A transformation; it needs params. Put it last in a chain, because the average
      misses what later members change. `jopt.eval_params` returns the average.

    Raises:
      ValueError: A number is negative.

    Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    Matches torch, whose ``weight_decay`` is ``chain(add_decayed_weights(…), asgd(…))``,
    with ``late_rate=True`` if the learning rate changes.

    >>> import jopt
    >>> tx, params = jopt.asgd(0.5, t0=0), jnp.array([1.0])
    >>> updates, state = tx.update(jnp.array([1.0]), tx.init(params), params)
    >>> state["asgd"].ax.round(4)
    Array([0.5], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, lambd=lambd, alpha=alpha, t0=t0)

    def decayed(steps):
        return learning_rate / (1 + lambd * learning_rate * steps) ** alpha

    def share(t):
        return 1 / jnp.maximum(1, t - 1 - t0)

    def scalars(t):
        return {"step_size": decayed(t - 1), "mu": share(t)}

    def late_scalars(t, eta):
        first = t == 1
        now = jnp.where(first, learning_rate, eta)
        # torch's average starts at the parameters, also with a t0 below 0.
        mu = jnp.where(first, 1.0, share(t))
        return {"step_size": now, "mu": mu, "eta": decayed(t)}

    def rule(g, ax, *, p, step_size, mu):
        u = -step_size * (g + lambd * p)
        # Exactly p + u at mu = 1, where ax + mu (p + u - ax) would round.
        return u, (1 - mu) * ax + mu * (p + u)

    def readout(p, ax):
        del p
        return ax

    slot = copied(ax_dtype)
    if not late_rate:
        return leafwise(rule, scalars, AsgdState, readout=readout, ax=slot)
    return leafwise(
        rule, late_scalars, LateAsgdState, carry={"eta": 0.0}, readout=readout, ax=slot
    )
