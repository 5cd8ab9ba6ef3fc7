"""Hyperparameters in the state, as optax has them."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.interop.optax.base import as_pair, own


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a state of its own."""

    def init(self) -> Any:
        """Return the first state."""
        ...

    def update(self, state: Any, **extra_args: Any) -> Any:
        """Return the next state."""
        ...

    def __call__(self, state: Any, **extra_args: Any) -> Any:
        """Return the value."""
        ...


class WrappedScheduleState(NamedTuple):
    """State of `WrappedSchedule`."""

    count: Any


class WrappedSchedule:
    """A function of the step as a `StatefulSchedule`.

    Args:
      schedule_fn: The function.
    """

    def __init__(self, schedule_fn: Callable[[Any], Any]):
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """Return the first state."""
        return WrappedScheduleState(jnp.zeros((), jnp.int32))

    def update(
        self, state: WrappedScheduleState, **extra_args: Any
    ) -> WrappedScheduleState:
        """Return the next state."""
        del extra_args
        return WrappedScheduleState(tree.safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Any:
        """Return the value."""
        del extra_args
        return self.schedule_fn(state.count)


class InjectHyperparamsState(NamedTuple):
    """State of `inject_hyperparams` in old versions."""

    count: Any
    hyperparams: dict[str, Any]
    inner_state: Any


class InjectStatefulHyperparamsState(NamedTuple):
    """State of `inject_hyperparams`."""

    count: Any
    hyperparams: dict[str, Any]
    hyperparams_states: dict[str, Any]
    inner_state: Any


def inject_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: Any = None,
) -> Callable[..., Any]:
    """Make the numbers of a factory entries of the state, to be read and changed there.

    `jopt.inject_hyperparams` and `jopt.tunable` do so by the annotations of a factory;
    this goes by the values of the arguments, as optax does.

    Args:
      inner_factory: Any function that returns a transformation.
      static_args: The names of numbers that stay arguments.
      hyperparam_dtype: The dtype of the numbers; None means the widest dtype of the
        parameters.

    Returns:
      A function with the arguments of ``inner_factory``. What is a number becomes an
      entry of ``state.hyperparams``; what is a function becomes a schedule whose value
      is there.

    Raises:
      ValueError: ``static_args`` has a name that is not an argument.

    >>> from jopt.interop import optax
    >>> tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.25)
    >>> state = tx.init(jnp.ones(2))
    >>> state.hyperparams["learning_rate"]
    Array(0.25, dtype=float32)
    """
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    if unknown := static - set(signature.parameters):
        raise ValueError(
            f"inject_hyperparams: static_args {sorted(unknown)} are not arguments of "
            f"the factory, which has {list(signature.parameters)}"
        )

    @functools.wraps(inner_factory)
    def injected(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        schedules, numbers, others = {}, {}, {}
        for name, value in bound.arguments.items():
            if name in static or isinstance(value, bool):
                others[name] = value
            elif isinstance(value, StatefulSchedule):
                schedules[name] = value
            elif callable(value):
                schedules[name] = WrappedSchedule(value)
            elif isinstance(value, int | float | jax.Array | np.ndarray | np.generic):
                numbers[name] = value
            else:
                others[name] = value

        def inner(hyperparams):
            given = others | hyperparams
            call = inspect.BoundArguments(
                signature, OrderedDict((n, given[n]) for n in bound.arguments)
            )
            tx = inner_factory(*call.args, **call.kwargs)
            return as_pair(tx, "inject_hyperparams: the result of the factory")

        def values(current, states, params, extra_args):
            dtype = hyperparam_dtype or _widest(params)
            scheduled = {
                name: f(states[name], **extra_args) for name, f in schedules.items()
            }
            return {
                name: _converted(x, dtype) for name, x in (current | scheduled).items()
            }

        def init(params):
            states = {name: f.init() for name, f in schedules.items()}
            hyperparams = values(numbers, states, params, {})
            hyperparams = {name: jnp.asarray(x) for name, x in hyperparams.items()}
            return InjectStatefulHyperparamsState(
                jnp.zeros((), jnp.int32),
                hyperparams,
                states,
                inner(hyperparams).init(params),
            )

        def update(updates, state, params=None, **extra_args):
            like = updates if params is None else params
            states = state.hyperparams_states
            hyperparams = values(state.hyperparams, states, like, extra_args)
            updates, inner_state = inner(hyperparams).update(
                updates, state.inner_state, params, **extra_args
            )
            return updates, state._replace(
                count=tree.safe_increment(state.count),
                hyperparams=hyperparams,
                hyperparams_states={
                    name: f.update(states[name], **extra_args)
                    for name, f in schedules.items()
                },
                inner_state=inner_state,
            )

        return own(init, update)

    return injected


def inject_stateful_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: Any = None,
) -> Callable[..., Any]:
    """Call `inject_hyperparams` by its older name.

    Args:
      inner_factory, static_args, hyperparam_dtype: See `inject_hyperparams`.
    """
    warnings.warn(
        "inject_stateful_hyperparams is now inject_hyperparams", DeprecationWarning, 2
    )
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)


def _widest(params: Any) -> Any:
    dtypes = {jnp.result_type(x) for x in jax.tree.leaves(params)}
    floats = [x for x in dtypes if jnp.issubdtype(x, jnp.floating)]
    return max(floats, key=lambda x: jnp.finfo(x).bits, default=jnp.dtype(jnp.float32))


def _converted(x: Any, dtype: Any) -> Any:
    """A float in the dtype of the hyperparameters; an array with a dtype keeps it."""
    if isinstance(x, jax.Array) and not getattr(x, "weak_type", False):
        return x
    is_float = jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating)
    return jnp.asarray(x, dtype) if is_float else x
