"""Numbers that change: how they become fields of a transformation's state.

Schedules, tunable numbers and arrays are not compiled in. The state of the
transformation is extended with these numbers, and with a count if it has none:
the ``ScaleByAdamState`` of ``scale_by_adam(b1=tunable(0.9))`` ends in a field ``b1``.
"""

from __future__ import annotations

import collections
import copyreg
import functools
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.arguments import shown_function, text_of
from jopt.values.recipe import is_traced, made_from


# The state of a stateless transformation; a chain's state has no entry for it.
NO_STATE: Any = ()


# What JAX raises where Python or NumPy needs the value of a traced step.
NEEDS_A_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def scheduled(name: str, function: Callable[[Any], Any], count: jax.Array) -> jax.Array:
    """The number of step ``count``.

    Raises:
      TypeError: The function needs the value of a step that is traced, or does not
        return one number.
    """
    try:
        value = function(count)
    except NEEDS_A_VALUE as error:
        raise TypeError(
            f"{shown_function(_culprit(function))}, in the schedule of {name}, needs "
            "the value of the step, as an if, float(step), NumPy and the index of a "
            "list do. It works outside jit; under jit and vmap the step is traced and "
            "has no value. Write jnp.where(step < 100, a, b) instead of an if, jnp.exp "
            "instead of np.exp, and jopt.piecewise_constant([100, 200], [a, b, c]) "
            "instead of a list"
        ) from error
    arguments.one_number(f"what the schedule of {name} returns", value)
    return scalar(value)


def is_traceable(function: Callable[[Any], Any]) -> bool:
    """Whether a schedule can be compiled; if not, it needs the value of the step."""
    try:
        jax.eval_shape(function, jax.ShapeDtypeStruct((), jnp.int32))
    except NEEDS_A_VALUE:
        return False
    except Exception:  # it will be raised, with its context, where the schedule is used
        return True
    return True


def _culprit(function: Any) -> Any:
    """The function that cannot be traced, inside the schedules made of it."""
    inside = filter(callable, made_from(function))
    return next((_culprit(f) for f in inside if not is_traceable(f)), function)


class ChangingNumbers:
    """The numbers of a transformation that are not compiled in, as fields of its state.

    Args:
      owner: The factory's name.
      sources: By name, a schedule, an array that is used as it is, or a `Tunable` or
        number that is the initial value of the field.
      make: The factory, with these arguments left open.
    """

    def __init__(
        self, owner: str, sources: Mapping[str, Any], make: Callable[..., Any]
    ):
        self.owner, self.make = owner, make
        self.names = tuple(sources)
        self.sources = dict(sources)
        self.schedules = {n: f for n, f in sources.items() if callable(f)}
        # A schedule of traced numbers belongs to their trace. In the key of a kernel it
        # would keep the kernel of this trace alive and compile another for the next.
        self.untraced = {n: f for n, f in self.schedules.items() if not is_traced(f)}
        self.arrays = {
            n: scalar(x) for n, x in sources.items() if isinstance(x, jax.Array)
        }

    def initial(self) -> dict[str, jax.Array]:
        """The numbers before the first step."""
        zero = jnp.zeros((), jnp.int32)
        return {
            name: scheduled(name, x, zero)
            if callable(x)
            else scalar(getattr(x, "initial", x))
            for name, x in self.sources.items()
        }

    def current(self, count: jax.Array, stored: dict[str, Any]) -> dict[str, jax.Array]:
        """The numbers of step ``count`` (0-based), given those that the state holds."""
        schedules = self.schedules.items()
        return stored | {name: scheduled(name, f, count) for name, f in schedules}

    def check(self, name: str, value: Any) -> None:
        """Raise if the number in the state may not be replaced by this one."""
        source = self.sources.get(name)
        if name in self.schedules or name in self.arrays:
            how = "scheduled by" if name in self.schedules else "given as the array"
            factor = ", or set a factor of it: chain(…, scale(tunable(1.0)))"
            raise ValueError(
                f"{name!r} is {how} {text_of(source)}: a value set now would be "
                "replaced at the next step. Change that, or make it jopt.tunable"
                f"{factor if name == 'learning_rate' else ''}."
            )
        if name in self.sources:
            for x in extremes(name, value):
                self.make(**(self.sources | {name: x}))  # checks its arguments

    def extended(self, base: Any) -> Any:
        """The state class ``base`` (or None) with the numbers, and a count for them."""
        return _extended(base, self.owner, self.names)

    def extend(
        self, state: Any, numbers: dict[str, jax.Array], count: jax.Array
    ) -> Any:
        """The state of the transformation alone, extended with the numbers."""
        if state == NO_STATE:
            return self.extended(None)(count=count, **numbers)
        fields = {"count": count} | state._asdict() | numbers
        return self.extended(type(state))(**fields)

    def split(self, state: Any) -> tuple[Any, dict[str, jax.Array]]:
        """The reverse of `extend`: the state without the numbers, and the numbers."""
        base = type(state).base
        numbers = {name: getattr(state, name) for name in self.names}
        return base(*state[: len(base._fields)]) if base else NO_STATE, numbers


def with_count(base: Any, owner: str) -> Any:
    """A state class with a count of the steps: the same one if it has a count."""
    return base if "count" in base._fields else _extended(base, owner, ())


def extremes(name: str, value: Any) -> set[float]:
    """The least and the largest number, or NaN; none for what is traced.

    The allowed values of an argument are an interval, so these two decide for all.
    """
    if isinstance(value, Real):
        return {arguments.float_of(name, value)}
    arrays = isinstance(value, jax.Array | np.ndarray) and np.size(value)
    if not arrays or isinstance(value, Tracer) or not arguments.is_real(value.dtype):
        return set()
    known: Any = np.asarray(value)
    return {float(np.min(known)), float(np.max(known))}


@functools.cache
def _extended(base: Any, owner: str, hyperparameters: tuple[str, ...]) -> Any:
    fields = base._fields if base else ()
    extra = [field for field in ("count", *hyperparameters) if field not in fields]
    camel = "".join(word.capitalize() for word in owner.split("_"))
    name = base.__name__ if base else f"{camel}State"
    plain: Any = collections.namedtuple(name, fields + tuple(extra))
    extended: Any = MadeHere(
        name, (plain,), {"__slots__": (), "__doc__": plain.__doc__}
    )
    extended.__module__ = __name__
    extended.base = base
    extended.hyperparameters = hyperparameters
    extended.metrics = getattr(base, "metrics", ())
    if hasattr(base, "step_counts"):
        extended.step_counts = base.step_counts
    extended.made_from = make = (base, owner, hyperparameters)
    extended.__reduce__ = lambda self: (_rebuild_state, (make, tuple(self)))
    return extended


class MadeHere(type):
    """The type of state classes that are made here, not written in a module.

    Pickle looks classes up by name, and would not find these. It makes them again, in
    the structures of states too, with which JAX serializes a compiled step.
    """

    made_from: tuple[Any, str, tuple[str, ...]]


copyreg.pickle(MadeHere, lambda made: (_extended, made.made_from))  # type: ignore[arg-type]


def _rebuild_state(
    make: tuple[Any, str, tuple[str, ...]], values: tuple[Any, ...]
) -> Any:
    return _extended(*make)(*values)
