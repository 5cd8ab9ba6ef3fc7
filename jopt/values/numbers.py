"""Numbers as arguments: constants, schedules, and numbers that live in the state.

A Python number is compiled in; a schedule is evaluated at every step; ``tunable(x)``
puts ``x`` into the state, where it can be read, changed and restored without compiling
again. Scheduled numbers are stored too, as last used, so both have the same state.
``learning_rate`` is in the state even when it is a constant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import jax
import numpy as np
from jax.core import Tracer

from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recipe, Recorded


class Tunable(Recorded):
    """A number that is kept in the optimizer state; made by `tunable`."""

    def __init__(self, initial: float | jax.Array):
        self.initial = initial
        self.recipe = Recipe(tunable, {"value": initial})


def tunable(value: float | jax.Array) -> Tunable:
    """Keep a hyperparameter in the state instead of compiling it in.

    Args:
      value: The initial number. Under ``vmap`` or ``jit`` it may be a traced scalar.

    Returns:
      A value to pass for any numeric argument of any factory.

    Raises:
      TypeError: ``value`` is not a single number.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.adam(1e-3, b1=jopt.tunable(0.9))
    >>> state = tx.init(jnp.ones(3))
    >>> state = jopt.set_hyperparams(tx, state, b1=0.8)
    >>> {name: round(float(x), 4) for name, x in jopt.hyperparams(state).items()}
    {'b1': 0.8, 'learning_rate': 0.001}
    """
    if isinstance(value, Tracer) and np.shape(value) == ():
        return Tunable(value)
    return Tunable(number("value", value, "one number"))


class _Declaration:
    """Marks the annotation of an argument that is a hyperparameter."""


# Declares that an argument is a hyperparameter: a function passed for it is a schedule.
# For other arguments, such as masks, a function is just a function.
if TYPE_CHECKING:
    ScalarOrSchedule: TypeAlias = float | jax.Array | Tunable | Callable[[Any], Any]
else:
    ScalarOrSchedule = Annotated[
        float | jax.Array | Tunable | Callable[[Any], Any], _Declaration
    ]


def is_declared(annotation: Any) -> bool:
    """Whether an annotation is, or contains, `ScalarOrSchedule`."""
    return _Declaration in getattr(annotation, "__metadata__", ()) or any(
        map(is_declared, get_args(annotation))
    )


def normalize(name: str, value: Any) -> Any:
    """A hyperparameter as a float, a schedule or a `Tunable`."""
    if isinstance(value, Tunable):
        return value
    if callable(value) and not isinstance(value, type):
        arguments.function_of_step(name, value)
        return value
    if isinstance(value, jax.Array) and arguments.is_number(value):
        return value  # perhaps traced: it cannot be a constant or a field of the state
    return number(name, value, "a number, a schedule or jopt.tunable(number)")


def number(name: str, value: Any, wanted: str) -> float:
    """The argument as a float."""
    if arguments.is_number(value):
        return float(value)
    raise TypeError(f"{name} must be {wanted}, got {name}={abbreviated(value)}")


def inject_hyperparams(
    factory: Any, static_args: str | tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Make all numbers of a factory `tunable`, as optax's function of this name does.

    The `ScalarOrSchedule` annotations of the factory declare which arguments are
    hyperparameters. Masks, dtypes, flags and counts stay unchanged.

    Args:
      factory: A factory decorated with ``transformation``.
      static_args: Names of numbers to keep as compile-time constants.

    Returns:
      A function with the factory's arguments. Schedules stay schedules.

    Raises:
      TypeError: The factory does not declare its hyperparameters.

    >>> import jopt
    >>> tx = jopt.inject_hyperparams(jopt.sgd)(learning_rate=0.1, momentum=0.9)
    >>> tx
    sgd(learning_rate=tunable(value=0.1), momentum=tunable(value=0.9))
    """
    declared = getattr(factory, "hyperparameters", None)
    if declared is None:
        raise TypeError(
            f"inject_hyperparams needs a factory decorated with @jopt.transformation, "
            f"which declares its hyperparameters, got {factory!r}"
        )
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    if unknown := static - set(declared):
        raise ValueError(
            f"static_args {sorted(unknown)} are not hyperparameters of "
            f"{factory.__name__}, which has {sorted(declared)}"
        )

    @functools.wraps(factory)
    def inject(*args, **kwargs):
        try:
            bound = factory.__signature__.bind(*args, **kwargs)
        except TypeError:
            return factory(*args, **kwargs)  # raises the error that explains it
        bound.apply_defaults()
        for name in set(declared) - static:
            value = bound.arguments[name]
            if isinstance(value, Real) and not isinstance(value, bool):
                bound.arguments[name] = tunable(float(value))
        return factory(*bound.args, **bound.kwargs)

    return inject
