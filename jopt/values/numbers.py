"""Numbers as arguments: constants, schedules, and numbers that live in the state.

A Python number is compiled in; a schedule is evaluated at every step; ``tunable(x)``
puts ``x`` into the state, where it can be read, changed and restored without compiling
again. Scheduled numbers are stored too, as last used, so both have the same state.
``learning_rate`` is in the state even when it is a constant.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recipe, Recorded


class Linear(Recorded):
    """A value that can be multiplied by numbers and added to them, and stays a value.

    A subclass defines ``linear(factor, offset)``, the value ``factor * self + offset``.
    """

    __array_ufunc__ = None  # else NumPy's numbers would make an array of it
    linear: Callable[[float, float], Any]

    def __neg__(self) -> Any:
        return self.linear(-1.0, 0.0)

    def __pos__(self) -> Any:
        return self

    def __mul__(self, other: Any) -> Any:
        return self.linear(self._number("*", other), 0.0)

    def __truediv__(self, other: Any) -> Any:
        return self.linear(1 / self._number("/", other), 0.0)

    def __add__(self, other: Any) -> Any:
        return self.linear(1.0, self._number("+", other))

    def __sub__(self, other: Any) -> Any:
        return self.linear(1.0, -self._number("-", other))

    def __rsub__(self, other: Any) -> Any:
        return self.linear(-1.0, self._number("-", other))

    __rmul__, __radd__ = __mul__, __add__

    def _unsupported(self, *others: Any) -> Any:
        raise TypeError(
            f"{self!r} can be negated, multiplied and divided by a number, and added "
            "to a number. For anything else, give the optimizer a function of the "
            "step, such as lambda step: jnp.sqrt(schedule(step))"
        )

    __pow__ = __rpow__ = __rtruediv__ = __mod__ = __floordiv__ = _unsupported
    __abs__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = _unsupported

    def _number(self, operator: str, other: Any) -> Any:
        if not arguments.is_number(other):
            raise TypeError(
                f"{self!r} {operator} {abbreviated(other)}: the other must be one "
                "number. For a product of schedules, use jopt.multiply_schedules([…]); "
                "for a product with a tunable number, add "
                "jopt.scale(jopt.tunable(number)) to the chain"
            )
        return perhaps_traced("number", other)


class Tunable(Linear):
    """A number that is kept in the optimizer state; made by `tunable`."""

    def __init__(self, initial: float | jax.Array):
        self.initial = initial
        self.recipe = Recipe(tunable, {"value": initial})

    def linear(self, factor: float, offset: float) -> Tunable:
        """A number of its own in the state, which starts at this value."""
        return tunable(factor * self.initial + offset)


def tunable(value: float | jax.Array) -> Tunable:
    """Keep a hyperparameter in the state instead of compiling it in.

    Args:
      value: The initial number. Under ``vmap`` or ``jit`` it may be a traced scalar.

    Returns:
      A value to pass for any numeric argument of any factory. In arithmetic with
      numbers, as in ``-tunable(0.1)``, the result is another tunable number.

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
        arguments.untraced(**{name: value})
        return arguments.float_of(name, value)
    raise TypeError(f"{name} must be {wanted}, got {name}={abbreviated(value)}")


def perhaps_traced(name: str, value: Any) -> Any:
    """The argument as a float, or as a traced scalar."""
    if isinstance(value, Tracer) and arguments.is_number(value):
        return jnp.asarray(value, float)
    return number(name, value, "a number")


def inject_hyperparams(
    factory: Any, static_args: str | tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Make all numbers of a factory `tunable`, as optax's function of this name does.

    The `ScalarOrSchedule` annotations of a decorated factory declare which arguments
    are hyperparameters. Masks, dtypes, flags and counts stay unchanged. In any other
    function that returns a transformation, all numbers are hyperparameters, except
    flags and those annotated as ``int``. They have the names of the arguments that the
    function passes them to: after ``scale_by_learning_rate(rate)``, it is
    ``learning_rate``.

    Args:
      factory: A factory decorated with ``transformation``, or a function that combines
        calls of such factories.
      static_args: Names of numbers to keep as compile-time constants.

    Returns:
      A function with the factory's arguments. Schedules stay schedules.

    Raises:
      TypeError: ``factory`` is not a function, or does not return a transformation of
        jopt.
      ValueError: The factory has no number of a name in ``static_args``.

    >>> import jopt
    >>> tx = jopt.inject_hyperparams(jopt.sgd)(learning_rate=0.1, momentum=0.9)
    >>> tx
    sgd(learning_rate=tunable(value=0.1), momentum=tunable(value=0.9))
    """
    if not callable(factory) or isinstance(factory, Recorded):
        raise TypeError(
            "inject_hyperparams needs a factory, such as jopt.adam, got "
            f"{abbreviated(factory)}"
        )
    signature = inspect.signature(factory)
    declared = getattr(factory, "hyperparameters", None)
    if declared is None:
        declared = _may_be_tunable(signature)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    if unknown := static - set(declared):
        raise ValueError(
            f"static_args {sorted(unknown)} are not hyperparameters of "
            f"{factory.__name__}, which has {sorted(declared)}"
        )

    @functools.wraps(factory)
    def inject(*args, **kwargs):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return factory(*args, **kwargs)  # raises the error that explains it
        bound.apply_defaults()
        for name in set(declared) - static:
            value = bound.arguments[name]
            if isinstance(value, Real) and not isinstance(value, bool):
                bound.arguments[name] = tunable(float(value))
        tx = factory(*bound.args, **bound.kwargs)
        if not isinstance(tx, Recorded):
            raise TypeError(
                f"inject_hyperparams needs a factory of jopt's transformations, but "
                f"{factory.__name__} returned {abbreviated(tx)}. For a factory of "
                "optax's, use optax.inject_hyperparams"
            )
        return tx

    return inject


def _may_be_tunable(signature: inspect.Signature) -> list[str]:
    """The arguments of a function that are numbers unless their annotation says not."""
    return [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.annotation not in (int, "int", bool, "bool")
    ]
