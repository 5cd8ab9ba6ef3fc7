"""ASGD: gradient descent that also keeps the average of the parameters.

    eta <- learning_rate / (1 + lambd learning_rate (t - 1))^alpha
    p   <- (1 - lambd eta) p - eta g
    ax  <- ax + (p - ax) / max(1, t - 1 - t0)

Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992; in
this form, for a loss with the penalty ``lambd / 2 |p|^2``, Xu, "Towards optimal one
pass large scale learning with averaged stochastic gradient descent", 2011.

State: 4 bytes per float32 parameter. Train with the parameters, and evaluate with the
average, `jopt.eval_params`. For the average to be more than a copy, ``t0`` has to be
less than the number of steps: take the number of steps of an epoch or two.
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
    ax: Any  # the average of the parameters, like params


@optimizer
def asgd(
    learning_rate: ScalarOrSchedule,
    lambd: ScalarOrSchedule = 1e-4,
    alpha: ScalarOrSchedule = 0.75,
    t0: ScalarOrSchedule = 1e6,
    *,
    ax_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Averaged stochastic gradient descent; ``ax`` in the state is the average.

    Args:
      learning_rate: The step size at the first step, >= 0; torch has 0.01.
      lambd: The decay of the parameters, >= 0, multiplied by the step size; also how
        fast the step size decays.
      alpha: The power with which the step size decays, >= 0.
      t0: The step after which to average, >= 0; until then the average is the last
        parameter.
      ax_dtype: What ``ax`` is stored in; None is float32 or wider. In bfloat16 an
        average over more than 256 steps stands still.

    Returns:
      A transformation; it needs params, and has to be the last of a chain, for what
      comes after it is not in the average. `jopt.eval_params` gives the average.

    Raises:
      ValueError: A number is negative.

    Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992. As
    torch, whose ``weight_decay`` is ``chain(add_decayed_weights(…), asgd(…))``, but for
    a schedule: torch uses the learning rate of the step before.

    >>> import jopt
    >>> tx, params = jopt.asgd(0.5, t0=0), jnp.array([1.0])
    >>> updates, state = tx.update(jnp.array([1.0]), tx.init(params), params)
    >>> state["asgd"].ax.round(4)
    Array([0.5], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, lambd=lambd, alpha=alpha, t0=t0)

    def scalars(t):
        eta = learning_rate / (1 + lambd * learning_rate * (t - 1)) ** alpha
        return {"eta": eta, "mu": 1 / jnp.maximum(1, t - 1 - t0)}

    def rule(g, ax, *, p, eta, mu):
        u = -eta * (g + lambd * p)
        return u, (1 - mu) * ax + mu * (p + u)

    def readout(p, ax):
        del p
        return ax

    return leafwise(rule, scalars, AsgdState, readout=readout, ax=copied(ax_dtype))
