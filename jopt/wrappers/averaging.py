"""Averages of the parameters, for evaluation.

    p <- p + u,   avg <- avg + w_t (p - avg),   w_1 = 1

`params_ema`  w_t = 1 - decay: an exponential moving average
`params_mean` w_t = 1 / k for the k-th sample: stochastic weight averaging

They go last in a chain, where the updates are final; `chain` raises otherwise. They
return the updates unchanged; `jopt.eval_params` returns the average. `params_lawa`
(lawa.py) averages the latest few samples.

State: 4 bytes per float32 parameter. A decay of 0.999 to 0.9999 averages over the last
thousand to ten thousand steps; stochastic weight averaging covers the last quarter of a
run at a constant or cyclic learning rate (`jopt.swa_schedule`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise
from jopt.core.transformation import GradientTransformation, Place
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
    each_gradient: bool = False,
    from_init: bool = False,
) -> GradientTransformation:
    """Keep an exponential moving average of the parameters for `jopt.eval_params`.

        avg <- decay avg + (1 - decay) (p + u),   avg_1 = p_1, or avg_0 = p_0

    Args:
      decay: Decay of the average, in [0, 1); 0.999 is common, Keras's default is 0.99.
        The schedule `jopt.ema_warmup_schedule` makes the average short at first.
      debias: If True, the first parameters get no extra weight, as in an average that
        starts at zero and is divided by ``1 - decay^t``. Use it with a constant decay;
        a warmup serves the same purpose.
      overwrite_every: Number of steps after which the average replaces the parameters,
        repeatedly; None means never.
      accumulator_dtype: Storage dtype of ``ema``; None means float32 or wider.
      each_gradient: Whether to average after each gradient of `accumulate`, as Keras
        does, instead of once per step.
      from_init: Whether the average starts at the parameters of ``init``, as in target
        networks and timm's ``ModelEmaV2``, instead of those after the first step.

    Returns:
      A transformation for the end of a chain; it needs params.

    Raises:
      ValueError: A number is out of range, or both ``debias`` and ``from_init`` are
        set.

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
    if debias and from_init:
        raise ValueError(
            "debias=True leaves out what from_init=True starts with: set only one"
        )
    if overwrite_every is not None:
        arguments.at_least(1, overwrite_every=overwrite_every)

    def scalars(count, t):
        w = (1 - decay) * jnp.ones_like(t)
        if debias:
            w = w / tree.one_minus_power(decay, t)
        numbers = {"w": w if from_init else jnp.where(count > 0, w, 1)}
        if overwrite_every:
            due = (count + 1) % overwrite_every == 0
            numbers["overwrite"] = due.astype(t.dtype)
        return numbers

    rule = _average_and_overwrite if overwrite_every else _average
    return leafwise(
        rule,
        scalars,
        ParamsEmaState,
        readout=_average_for_eval,
        place=Place(keeps_updates=not overwrite_every, once_per_step=not each_gradient),
        ema=copied(accumulator_dtype),
    )


class ParamsMeanState(NamedTuple):
    """State of `params_mean`."""

    count: jax.Array  # int32 scalar, updates so far
    mean: Any  # average of the parameters, like params


@transformation
def params_mean(
    start: int = 0, every: int = 1, *, accumulator_dtype: StorageDtype | None = None
) -> GradientTransformation:
    """Keep the mean of sampled parameters for `jopt.eval_params`.

        avg <- avg + (p + u - avg) / k   for the k-th sample

    Before the first sample, `jopt.eval_params` returns the newest parameters.

    Args:
      start: Number of steps before the first sample, >= 0.
      every: Number of steps between samples, >= 1.
      accumulator_dtype: Storage dtype of ``mean``; None means float32 or wider.

    Returns:
      A transformation for the end of a chain; it needs params.

    Raises:
      ValueError: A number is out of range.

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
        samples = jnp.maximum(since // every + 1, 1)
        w = jnp.where(since % every == 0, 1 / scalar(samples), 0)
        return {"w": jnp.where(since < 0, 1, w)}

    return leafwise(
        _average,
        scalars,
        ParamsMeanState,
        readout=_average_for_eval,
        place=Place(keeps_updates=True, once_per_step=True),
        mean=copied(accumulator_dtype),
    )


def _average(
    u: jax.Array, avg: jax.Array, *, p: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Not avg + w (p + u - avg), which is not exact for w = 1.
    return u, (1 - w) * avg + w * (p + u)


def _average_and_overwrite(
    u: jax.Array, avg: jax.Array, *, p: jax.Array, w: jax.Array, overwrite: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # A separate rule, because on a TPU the selection adds two thirds to the step's
    # memory traffic. Not new - p: this form is exact where avg is close to p.
    to_average = (1 - w) * (avg - p) + w * u
    _, new = _average(u, avg, p=p, w=w)
    return jnp.where(overwrite > 0, to_average, u), new


def _average_for_eval(p: jax.Array, avg: jax.Array) -> jax.Array:
    return avg
