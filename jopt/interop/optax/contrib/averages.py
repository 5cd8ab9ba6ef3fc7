"""Schedule-free learning, with the state of ``optax.contrib``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jopt
from jopt.interop.optax.base import (
    Numeric,
    Pair,
    ScalarOrSchedule,
    as_pair,
    chain,
    joined,
    lenient,
    with_fields,
)
from jopt.interop.optax.optimizers import sgd
from jopt.interop.optax.scaling import (
    add_decayed_weights,
    scale_by_learning_rate,
    scale_by_rms,
)
from jopt.tree import ratio


class ScheduleFreeState(NamedTuple):
    """State of `schedule_free`."""

    b1: Any
    weight_sum: Any
    step_count: Any
    max_lr: Any
    base_optimizer_state: Any
    z: Any


class _AverageState(NamedTuple):
    weight_sum: Any
    step_count: Any
    max_lr: Any
    z: Any


def schedule_free_eval_params(state: Any, params: Any) -> Any:
    """Return the averaged parameters, to evaluate with.

    Args:
      state: The state of `schedule_free`.
      params: The parameters that are trained.

    Raises:
      ValueError: ``state`` is another state.
    """
    if getattr(state, "b1", None) is None or getattr(state, "z", None) is None:
        raise ValueError(
            "schedule_free_eval_params takes the state of schedule_free, got "
            f"{type(state).__name__}"
        )
    b1 = state.b1
    return jax.tree.map(lambda y, z: ratio(y - (1 - b1) * z, b1, b1), params, state.z)


@lenient
def schedule_free(
    base_optimizer: Any,
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    weight_lr_power: float = 2.0,
    state_dtype: Any = None,
) -> Pair:
    """Make an optimizer schedule-free, see `jopt.schedule_free`.

    Args:
      base_optimizer: An optimizer without momentum.
      learning_rate: Its learning rate. As in optax, a step has the weight of the rate
        of the next one if it is a schedule.
      b1, weight_lr_power, state_dtype: See `jopt.schedule_free`.

    Returns:
      A transformation; evaluate with `schedule_free_eval_params`.
    """
    rate: Any = learning_rate
    if callable(learning_rate):
        schedule = learning_rate
        rate = lambda count: schedule(count + 1)  # noqa: E731
    tx = jopt.scale_by_schedule_free(
        rate, b1, weight_lr_power, state_dtype, rescale=False
    )
    average = with_fields(
        tx,
        _AverageState,
        ours={"count": lambda state, _: state.step_count - 1},
        theirs={"step_count": lambda state, _: state.count + 1},
    )
    base = as_pair(base_optimizer, "schedule_free: base_optimizer")
    fields = _AverageState._fields

    def collected(states, old):
        base_state, average_state = states
        new = average_state._asdict()
        if old is not None:
            return old._replace(base_optimizer_state=base_state, **new)
        dtypes = {jnp.result_type(x) for x in jax.tree.leaves(average_state.z)}
        dtype = min(dtypes, key=lambda x: jnp.finfo(x).bits, default=jnp.float32)
        return ScheduleFreeState(
            b1=jnp.asarray(b1, dtype),
            base_optimizer_state=base_state,
            **new,
        )

    def entries(state):
        kept = _AverageState(*(getattr(state, name) for name in fields))
        return state.base_optimizer_state, kept

    return joined([base, average], collected, entries)


def _warmed_up(learning_rate: float, warmup_steps: int | None) -> Any:
    if warmup_steps is None:
        return learning_rate
    return jopt.warmup_constant_schedule(0.0, learning_rate, warmup_steps)


def schedule_free_sgd(
    learning_rate: float = 1.0,
    warmup_steps: int | None = None,
    b1: Numeric = 0.9,
    weight_decay: float | None = None,
    weight_lr_power: float = 2.0,
    state_dtype: Any = None,
) -> Pair:
    """Schedule-free SGD, see `jopt.schedule_free_sgd`."""
    rate = _warmed_up(learning_rate, warmup_steps)
    base = sgd(rate)
    if weight_decay is not None:
        base = chain(add_decayed_weights(weight_decay), base)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def schedule_free_adamw(
    learning_rate: float = 0.0025,
    warmup_steps: int | None = None,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    weight_lr_power: float = 2.0,
    state_dtype: Any = None,
) -> Pair:
    """Schedule-free AdamW, see `jopt.schedule_free_adamw`."""
    rate = _warmed_up(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)
