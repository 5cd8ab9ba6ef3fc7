"""Factories: functions whose calls are recorded, checked and open to changing numbers.

`transformation` and `schedule` decorate every factory of the library, and a user's own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jopt import tree
from jopt.core.changing_numbers import ChangingNumbers
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments, registry
from jopt.values.arguments import abbreviated, suggestion, text_of
from jopt.values.docs import inherited, shown_signature
from jopt.values.numbers import Linear, is_declared, normalize, number, perhaps_traced
from jopt.values.recipe import Recipe, Recorded, freeze
from jopt.values.registry import Kind


P = ParamSpec("P")
Value = TypeVar("Value", bound=Recorded)

# Annotates an argument that is the storage dtype of a slot, or the name of a format;
# and one that is a dtype only: of a computation, or of arrays unlike the parameters.
if TYPE_CHECKING:
    StorageDtype: TypeAlias = DTypeLike
    PlainDtype: TypeAlias = DTypeLike
else:
    StorageDtype = Annotated[DTypeLike, "storage"]
    PlainDtype = Annotated[DTypeLike, "plain"]


def transformation(
    factory: Callable[P, GradientTransformation],
) -> Callable[P, GradientTransformation]:
    """Decorate a factory: its results are values, and their numbers may change.

    Arguments are checked and normalized by their annotations (`ScalarOrSchedule`,
    `StorageDtype`, ``float``, ``int``, ``bool``). A `ScalarOrSchedule` may be a number,
    a schedule or `tunable`. Schedules and tunable numbers, and ``learning_rate`` in any
    case, are kept in the state; in each step the factory is called again with the
    numbers of that step. The factory is registered under its name for `get`, `names`
    and `from_config`.

    Args:
      factory: A function that returns a `GradientTransformation`.

    Returns:
      The factory, with ``repr``, ``==``, ``hash``, ``pickle`` and config for its
      results.

    >>> import jopt
    >>> @jopt.transformation
    ... def half_scale(step_size: jopt.ScalarOrSchedule):
    ...     return jopt.leafwise(lambda g: 0.5 * step_size * g)
    >>> half_scale(2) == half_scale(step_size=2.0), half_scale(2)
    (True, half_scale(step_size=2.0))
    """
    signature = inspect.signature(factory, eval_str=True)
    declared = {n: p.annotation for n, p in signature.parameters.items()}

    @functools.wraps(factory)
    def make(*args, **kwargs):
        bound = bind(factory, signature, args, kwargs)
        tx = factory(*bound.args, **bound.kwargs)
        if not isinstance(tx, GradientTransformation):
            raise TypeError(
                f"{factory.__name__} must return a jopt transformation, got "
                f"{abbreviated(tx)}; a foreign pair (init, update) becomes one in "
                "jopt.chain(pair)"
            )
        changing = {
            name: value
            for name, value in bound.arguments.items()
            if is_declared(declared[name])
            and value is not None
            and (name == "learning_rate" or not isinstance(value, float))
        }
        # A transformation with a recipe has handed its numbers on to inner factories.
        if tx.recipe is None and changing:
            fixed = {n: x for n, x in bound.arguments.items() if n not in changing}
            call = OpenCall(factory, signature, fixed)
            numbers = ChangingNumbers(factory.__name__, changing, call)
            tx = tx.with_changing_numbers(call, numbers)
        return tx.replace(recipe=Recipe(make, bound.arguments))

    return _register(make, factory, signature, _kind(factory, signature))


def _kind(factory: Callable[..., Any], signature: inspect.Signature) -> Kind:
    """The kind of transformation that a factory makes, by its first argument."""
    first = next(iter(signature.parameters.values()), None)
    if first is None:
        return "transform"
    if _mentions(first.annotation, GradientTransformation):
        return "wrapper"
    # Some transforms take the learning rate first too: those that multiply by it.
    is_part = factory.__name__.startswith("scale_by_") or (
        ".transforms." in factory.__module__
    )
    takes_rate = first.name.endswith("learning_rate")
    return "optimizer" if takes_rate and not is_part else "transform"


def _mentions(annotation: Any, class_: type) -> bool:
    return annotation is class_ or any(
        _mentions(inner, class_) for inner in get_args(annotation)
    )


class OpenCall:
    """A factory call with some arguments left open, equal to any equal one."""

    def __init__(
        self,
        factory: Callable[..., Any],
        signature: inspect.Signature,
        fixed: dict[str, Any],
    ):
        self.factory, self.signature, self.fixed = factory, signature, fixed
        self.key = (factory, freeze(fixed))

    def __call__(self, **numbers: Any) -> Any:
        arguments: Any = {**self.fixed, **numbers}
        bound = inspect.BoundArguments(self.signature, arguments)
        return self.factory(*bound.args, **bound.kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenCall) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Schedule(Linear):
    """A function of the step that knows the call that made it; see `schedule`.

    In arithmetic with numbers, as in ``-schedule`` or ``0.1 * schedule``, the result is
    another schedule.
    """

    def __init__(self, function: Callable[[jax.Array], Any]):
        self.function = function

    def __call__(self, count: float | jax.Array) -> jax.Array:
        """The value at step ``count`` (0-based; an array of steps gives an array).

        Optimizers count in integers, which stay exact. A float may lie between two
        steps, but float32 is exact up to step 16,777,216 only.
        """
        count = jnp.asarray(count)
        if not arguments.is_real(count.dtype):
            raise TypeError(
                f"a schedule takes the number of a step, got {text_of(count)}"
            )
        return jnp.asarray(self.function(count), tree.scalar_dtype())

    def linear(self, factor: float, offset: float) -> Schedule:
        """The schedule ``factor * self + offset``; see `affine_schedule`."""
        return affine_schedule(self, factor, offset)


def schedule(
    factory: Callable[P, Callable[[jax.Array], Any]],
) -> Callable[P, Schedule]:
    """Decorate a factory of schedules: its results are values.

    Its ``float`` arguments may be traced, as in a ``vmap`` over peak values. Such a
    number is the scalar that is traced, which no Python ``if`` can look at.

    Args:
      factory: A function that returns a function of the integer step (0-based).

    Returns:
      The factory, with ``repr``, ``==``, ``hash``, ``pickle`` and config for its
      results.

    >>> import jopt
    >>> @jopt.schedule
    ... def harmonic(init_value: float):
    ...     return lambda count: init_value / (1 + count)
    >>> harmonic(1), float(harmonic(1)(3))
    (harmonic(init_value=1.0), 0.25)
    """

    @functools.wraps(factory)
    def make(*args, **kwargs):
        function = factory(*args, **kwargs)
        if not callable(function):
            raise TypeError(
                f"{factory.__name__} must return a function of the step, got "
                f"{text_of(function)}"
            )
        return Schedule(function)

    return _recorded(make, "schedule", returns="Schedule")


def recorded(factory: Callable[P, Value]) -> Callable[P, Value]:
    """Decorate a factory of other values that know the call that made them.

    Args:
      factory: A function that returns a `Recorded`. Its arguments are checked and
        normalized by their annotations.

    Returns:
      The factory, with ``repr``, ``==``, ``hash``, ``pickle`` and config for its
      results.
    """
    return _recorded(factory)


def _recorded(factory: Any, kind: Kind | None = None, returns: str = "") -> Any:
    signature = inspect.signature(factory, eval_str=True)

    @functools.wraps(factory)
    def make(*args, **kwargs):
        bound = bind(factory, signature, args, kwargs, traced=kind == "schedule")
        value = factory(*bound.args, **bound.kwargs)
        value.recipe = Recipe(make, bound.arguments)
        return value

    return _register(make, factory, signature, kind, returns)


def _register(
    make: Any,
    factory: Any,
    signature: inspect.Signature,
    kind: Kind | None,
    returns: str = "",
) -> Any:
    scope = inspect.unwrap(factory).__globals__

    def find(name):
        return scope.get(name) or registry.public(name)

    make.__signature__ = shown_signature(factory, returns)
    make.__doc__ = factory.__doc__ and inherited(factory.__doc__, find)
    make.hyperparameters = tuple(
        name
        for name, parameter in signature.parameters.items()
        if is_declared(parameter.annotation)
    )
    make.kind = kind
    registry.register(make)
    return make


def bind(
    factory: Callable[..., Any],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    traced: bool = False,
) -> inspect.BoundArguments:
    """Bind the arguments of a call, with defaults, normalized by their annotations.

    Args:
      factory: The function that is called.
      signature: Its signature, with evaluated annotations.
      args: The arguments by position.
      kwargs: The arguments by name.
      traced: Whether arguments annotated as ``float`` may be traced.

    Raises:
      TypeError: An argument has an unknown name, or is missing, surplus or of another
        type.
    """
    for name in kwargs:
        parameters = signature.parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if name not in parameters and not takes_any:
            raise TypeError(
                f"{factory.__name__} has no argument {name!r}."
                f"{suggestion(name, parameters)} {_shown(factory, signature)}"
            )
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(
            f"{factory.__name__}: {error}. {_shown(factory, signature)}"
        ) from None
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            annotation = parameter.annotation
            bound.arguments[name] = _normalize(name, value, annotation, traced)
    return bound


def _shown(factory: Callable[..., Any], signature: inspect.Signature) -> str:
    """The signature of a factory, without annotations to keep the message short."""
    parameters = signature.parameters.values()
    bare = inspect.Signature([p.replace(annotation=p.empty) for p in parameters])
    return f"The call is {factory.__name__}{bare}."


def _normalize(name: str, value: Any, annotation: Any, traced: bool) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    value = _copied(value)
    if value is None and type(None) in get_args(annotation):
        return None
    if is_declared(annotation):
        return normalize(name, value)
    if StorageDtype in (annotation, *get_args(annotation)):
        return arguments.storage_dtype(name, value)
    if PlainDtype in (annotation, *get_args(annotation)):
        return arguments.plain_dtype(name, value)
    if annotation in (bool, bool | None):
        return arguments.flag(name, value)
    if annotation in (int, int | None):
        return arguments.whole(name, value)
    if annotation in (float, float | None):
        if traced:
            return perhaps_traced(name, value)
        return number(name, value, "a number")
    _check_plain(name, value, annotation)
    return value


def _copied(value: Any) -> Any:
    """Copy dicts and lists, so that the recipe does not change with the caller's."""
    if type(value) is dict:
        return {name: _copied(x) for name, x in value.items()}
    return [_copied(x) for x in value] if type(value) is list else value


# Types that an argument can be checked by, and their names in errors.
_PLAIN = {int: "a whole number", jax.Array: "an array", tuple: "a tuple"}


def _check_plain(name: str, value: Any, annotation: Any) -> None:
    """Raise if an argument has none of its annotated types, if these are all plain."""
    if not isinstance(annotation, UnionType):
        return
    types = [get_origin(t) or t for t in get_args(annotation) if t is not type(None)]
    if not _PLAIN.keys() >= set(types):
        return
    arrays = (np.ndarray,) if jax.Array in types else ()
    if isinstance(value, bool) or not isinstance(value, (*types, *arrays)):
        allowed = " or ".join(_PLAIN[t] for t in types)
        raise TypeError(f"{name} must be {allowed}, got {name}={text_of(value)}")


@schedule
def affine_schedule(
    schedule: Callable[[Any], Any], factor: float = 1.0, offset: float = 0.0
) -> Callable[[jax.Array], Any]:
    """The schedule ``factor * schedule + offset``: what arithmetic with numbers makes.

    Args:
      schedule: A schedule, or any function of the integer step.
      factor: What its values are multiplied by.
      offset: What is added to the product.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is not finite.
      TypeError: ``schedule`` is not a function of the step.

    >>> import jopt
    >>> 1 - jopt.linear_schedule(0.0, 1.0, 4)
    affine_schedule(schedule=linear_schedule(init_value=0.0, end_value=1.0, \
transition_steps=4), factor=-1.0, offset=1.0)
    """
    arguments.function_of_step("schedule", schedule)
    arguments.finite(factor=factor, offset=offset)

    def function(count):
        return factor * jnp.asarray(schedule(count), tree.scalar_dtype()) + offset

    return function
