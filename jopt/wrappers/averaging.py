"""Averages of the parameters, to evaluate with.

    p <- p + u,   avg <- avg + w_t (p - avg),   w_1 = 1

`params_ema`  w_t = 1 - decay: an exponential moving average
`params_mean` w_t = 1 / k for the k-th parameters taken: stochastic weight averaging

They stand last in a chain, where the updates are what will be added, and leave the
updates alone; `jopt.eval_params` gives the average. `params_lawa` (lawa.py) is the mean
of the latest few.

State: 4 bytes per float32 parameter. A decay of 0.999 to 0.9999 averages over the last
thousand to ten thousand steps; stochastic weight averaging takes the last quarter of a
run at a constant or cyclic learning rate (`jopt.swa_schedule`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise
from jopt.core.transformation import GradientTransformation
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ParamsEmaState(NamedTuple):
    """State of `params_ema`."""

    count: jax.Array  # int32 scalar, updates so far
    ema: Any  # average of the parameters, like params


@transformation
def params_ema(
    decay: ScalarOrSchedule,
    debias: bool = False,
    overwrite_every: int | None = None,
    *,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Exponential moving average of the parameters, for `jopt.eval_params`.

        avg <- decay avg + (1 - decay) (p + u),   avg_1 = p_1

    Args:
      decay: In [0, 1); 0.999 is usual, Keras has 0.99. With the schedule
        `jopt.ema_warmup_schedule` the average is short at first.
      debias: Whether the first parameters count no more than the later ones, as in an
        average that starts at zero and is divided by ``1 - decay^t``. It is for a
        decay that does not change; a warmup serves the same purpose.
      overwrite_every: After how many steps the parameters become the average, again and
        again; None never.
      accumulator_dtype: What ``ema`` is stored in; None is float32 or wider.

    Returns:
      A transformation, to be the last of a chain; it needs params.

    Raises:
      ValueError: A number is out of its range.

    Equal to Keras's ``use_ema`` with ``ema_momentum`` and ``ema_overwrite_frequency``,
    and to torch's ``AveragedModel`` with ``get_ema_multi_avg_fn``. Polyak & Juditsky,
    "Acceleration of stochastic approximation by averaging", 1992.

    >>> import jopt
    >>> tx, params = jopt.chain(jopt.sgd(1.0), jopt.params_ema(0.5)), jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> params, jopt.eval_params(tx, state, params)
    (Array([-2.], dtype=float32), Array([-1.5], dtype=float32))
    """
    arguments.decay_rate(decay=decay)

    if overwrite_every is not None:
        arguments.at_least(1, overwrite_every=overwrite_every)

    def scalars(count, t):
        w = (1 - decay) * jnp.ones_like(t)
        if debias:
            w = w / tree.one_minus_power(decay, t)
        found = {"w": jnp.where(count > 0, w, 1)}
        if overwrite_every:
            due = (count + 1) % overwrite_every == 0
            found["overwrite"] = due.astype(t.dtype)
        return found

    rule = _average_and_overwrite if overwrite_every else _average
    ema = copied(accumulator_dtype)
    return leafwise(rule, scalars, ParamsEmaState, readout=_evaluated, ema=ema)


class ParamsMeanState(NamedTuple):
    """State of `params_mean`."""

    count: jax.Array  # int32 scalar, updates so far
    mean: Any  # average of the parameters, like params


@transformation
def params_mean(
    start: int = 0, every: int = 1, *, accumulator_dtype: StorageDtype | None = None
) -> GradientTransformation:
    """The mean of the parameters of many steps, for `jopt.eval_params`.

        avg <- avg + (p + u - avg) / k   for the k-th parameters taken

    Until the first are taken, `jopt.eval_params` gives the newest.

    Args:
      start: After how many steps the first parameters are taken, >= 0.
      every: Every how many steps, >= 1.
      accumulator_dtype: What ``mean`` is stored in; None is float32 or wider.

    Returns:
      A transformation, to be the last of a chain; it needs params.

    Raises:
      ValueError: A number is out of its range.

    Equal to torch's ``AveragedModel`` when ``update_parameters`` is called at these
    steps. Izmailov et al., "Averaging weights leads to wider optima and better
    generalization", 2018.

    >>> import jopt
    >>> tx, params = jopt.chain(jopt.sgd(1.0), jopt.params_mean(start=1)), jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> params, jopt.eval_params(tx, state, params)
    (Array([-3.], dtype=float32), Array([-2.5], dtype=float32))
    """
    arguments.at_least(0, start=start)
    arguments.at_least(1, every=every)

    def scalars(count):
        since = count - start
        taken = jnp.maximum(since // every + 1, 1)
        w = jnp.where(since % every == 0, 1 / scalar(taken), 0)
        return {"w": jnp.where(since < 0, 1, w)}

    mean = copied(accumulator_dtype)
    return leafwise(_average, scalars, ParamsMeanState, readout=_evaluated, mean=mean)


def _average(
    u: jax.Array, avg: jax.Array, *, p: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Exact for w = 1.
    return u, (1 - w) * avg + w * (p + u)


def _average_and_overwrite(
    u: jax.Array, avg: jax.Array, *, p: jax.Array, w: jax.Array, overwrite: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Exact where avg is close to p. It is another rule, for on a TPU the choice costs
    # two thirds of the step's traffic again.
    to_average = (1 - w) * (avg - p) + w * u
    _, new = _average(u, avg, p=p, w=w)
    return jnp.where(overwrite > 0, to_average, u), new


def _evaluated(p: jax.Array, avg: jax.Array) -> jax.Array:
    return avg
