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
      learning_rate: The first step size, >= 0; torch's default is 0.01.
      lambd: Weight decay, >= 0, multiplied by the step size. It also sets how fast the
        step size decays.
      alpha: Exponent of the step size's decay, >= 0.
      t0: Step after which averaging starts, >= 0; until then ``ax`` is a copy of the
        latest parameters.
      ax_dtype: Storage dtype of ``ax``; None means float32 or wider. In bfloat16, an
        average over more than 256 steps stops changing.

    Returns:
      A transformation; it needs params. Put it last in a chain, because the average
      misses what later members change. `jopt.eval_params` returns the average.

    Raises:
      ValueError: A number is negative.

    Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    Matches torch, whose ``weight_decay`` is ``chain(add_decayed_weights(…), asgd(…))``,
    except with a schedule: torch uses the previous step's learning rate.

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
        # Exactly p + u at mu = 1, where ax + mu (p + u - ax) would round.
        return u, (1 - mu) * ax + mu * (p + u)

    def readout(p, ax):
        del p
        return ax

    return leafwise(rule, scalars, AsgdState, readout=readout, ax=copied(ax_dtype))
