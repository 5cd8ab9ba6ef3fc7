"""Arguments: what is allowed, and the errors for everything else.

Numbers are checked when a transformation is built. A message names the argument, shows
its value, and says what is allowed. ``core/tree_checks.py`` checks trees.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.values.spelling import suggestion as suggestion


_IN_RANGE = contextvars.ContextVar("in_range", default=True)


@contextlib.contextmanager
def any_range() -> Iterator[None]:
    """Let numbers have any value, for another library's calls that may have them."""
    before = _IN_RANGE.set(False)
    try:
        yield
    finally:
        _IN_RANGE.reset(before)


def _require(
    allowed: Callable[[Any], bool], wanted: str, arguments: dict[str, Any]
) -> None:
    """Check the numbers that are known now; others exist at run time only."""
    if not _IN_RANGE.get():
        return
    for name, value in arguments.items():
        value = known(value)
        # NaN fails every comparison, so it is rejected too.
        if value is not None and not allowed(value):
            raise ValueError(f"{name} must be {wanted}, got {name}={text_of(value)}")


def known(value: Any) -> Any:
    """The initial value of a hyperparameter; None if it is not known before the run."""
    value = getattr(value, "initial", value)  # a tunable's number
    if isinstance(value, jax.Array) and not isinstance(value, Tracer):
        return float(value)
    return value if isinstance(value, Real) else None


@functools.cache
def _library(class_: type) -> str:
    return class_.__module__.partition(".")[0]


# How to convert the arrays of libraries whose arrays JAX does not take.
_CONVERSIONS = {
    "torch": "jnp.asarray(x.detach().cpu().numpy())",
    "tensorflow": "jnp.asarray(x.numpy())",
}


def elsewhere(value: Any) -> str:
    """For an array that JAX does not take, its library and what to pass; or nothing."""
    library = _library(type(value))
    if library not in _CONVERSIONS:
        return ""
    is_scalar = tuple(getattr(value, "shape", (0,))) == ()
    call = "float(x)" if is_scalar else _CONVERSIONS[library]
    return f"of {library}; pass {call}"


def float_of(name: str, value: Any) -> float:
    """A number as a float; raise if a float cannot hold it."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{name} must be below 1.8e308, the largest float, in magnitude, got "
            f"{name}={abbreviated(value)}"
        ) from None


def is_number(value: Any) -> bool:
    """Whether a value is one real number, perhaps traced; bools do not count."""
    if elsewhere(value):
        return False
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(value, np.generic):
        return isinstance(value, Real) and not isinstance(value, bool)
    return np.shape(value) == () and is_real(dtype)


def is_real(dtype: Any) -> bool:
    """Whether arrays of this dtype hold real numbers."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer))


def positive(**arguments: Any) -> None:
    """Raise unless every number is finite and > 0."""
    _require(lambda x: 0 < x < math.inf, "> 0 and finite", arguments)


def limit(**arguments: Any) -> None:
    """Raise unless every number is > 0; infinity is no limit."""
    _require(lambda x: x > 0, "> 0", arguments)


def nonnegative(**arguments: Any) -> None:
    """Raise unless every number is finite and >= 0."""
    _require(lambda x: 0 <= x < math.inf, ">= 0 and finite", arguments)


def some_positive(**arguments: Any) -> None:
    """Raise if all numbers are zero."""
    if _IN_RANGE.get() and all(known(value) == 0 for value in arguments.values()):
        shown = " and ".join(
            f"{name}={text_of(value)}" for name, value in arguments.items()
        )
        raise ValueError(
            f"{shown} cannot all be zero: a zero gradient would be divided by zero"
        )


def nonpositive(**arguments: Any) -> None:
    """Raise unless every number is finite and <= 0."""
    _require(lambda x: -math.inf < x <= 0, "<= 0 and finite", arguments)


def decay_rate(**arguments: Any) -> None:
    """Raise unless every number is in [0, 1), as the decay of a moving average is."""
    _require(lambda x: 0 <= x < 1, "in [0, 1)", arguments)


def fraction(**arguments: Any) -> None:
    """Raise unless every number is in [0, 1]."""
    _require(lambda x: 0 <= x <= 1, "in [0, 1]", arguments)


def finite(**arguments: Any) -> None:
    """Raise unless every number is finite."""
    _require(math.isfinite, "a finite number", arguments)


def one_of(allowed: Collection[Any], **arguments: Any) -> None:
    """Raise unless every argument is one of the allowed words."""
    for name, value in arguments.items():
        if value not in allowed:
            options = ", ".join(map(repr, allowed))
            raise ValueError(
                f"{name} must be one of {options}, got {name}={text_of(value)}"
            )


def whole(name: str, value: Any) -> int:
    """The argument as an int; raise unless it is a whole number."""
    untraced(**{name: value})
    is_whole = is_number(value) and math.isfinite(float_of(name, value))
    if not is_whole or value != int(value):
        raise TypeError(
            f"{name} must be a whole number, got {name}={abbreviated(value)}"
        )
    return int(value)


def untraced(**arguments: Any) -> None:
    """Raise if a number that decides what is compiled is traced by jit or vmap."""
    for name, value in arguments.items():
        if isinstance(value, Tracer):
            raise TypeError(
                f"{name} must be a Python number, because it decides what is compiled; "
                f"got {name}={abbreviated(value)}, which jit, vmap or another "
                "transformation of JAX traces"
            )


def at_least(minimum: int, **arguments: int) -> None:
    """Raise unless every number is at least ``minimum``."""
    _require(lambda x: x >= minimum, f">= {minimum}", arguments)


def at_most(maximum: int, **arguments: float) -> None:
    """Raise unless every number is at most ``maximum``.

    It bounds numbers that Python loops over when an optimizer is built or compiled, so
    that a wrong or hostile config is an error and not a program that hangs.
    """
    _require(lambda x: x <= maximum, f"<= {maximum}", arguments)


def below(name: str, limit: int, **arguments: int) -> None:
    """Raise unless every whole number is >= 0 and less than the argument ``name``."""
    at_least(0, **arguments)
    for other, value in arguments.items():
        if value >= limit:
            raise ValueError(
                f"{other} must be < {name}, got {other}={value}, {name}={limit}"
            )


def increasing(name: str, values: Iterable[Any]) -> list[int]:
    """The values as ints; raise unless they are whole numbers >= 0 that increase."""
    steps = [whole(f"{name}[{i}]", value) for i, value in enumerate(values)]
    if any(now <= before for before, now in pairwise([-1, *steps])):
        raise ValueError(f"{name} must be >= 0 and increase, got {name}={steps}")
    return steps


def flag(name: str, value: Any) -> bool:
    """The argument; raise unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {name}={text_of(value)}")
    return value


# The formats of `jopt.storage`, by name.
FORMATS = ("bfloat16_sr", "float8_e4m3", "int8", "int4")


def storage_dtype(name: str, value: Any) -> str:
    """The name of a format or a floating point dtype of 16 bits; raise for others."""
    if isinstance(value, str) and value in FORMATS:
        return value
    return plain_dtype(name, value, FORMATS)


def plain_dtype(name: str, value: Any, formats: Collection[str] = ()) -> str:
    """The name of a dtype; raise unless it is a floating point dtype of 16 bits."""
    if not formats and isinstance(value, str) and value in FORMATS:
        raise ValueError(
            f"{name} must be a floating point dtype such as 'bfloat16', got "
            f"{name}={text_of(value)}: formats are for arrays of the state with the "
            "shapes of the parameters, such as moments and sums"
        )
    names = ", ".join(map(repr, formats))
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        dtype = None
    kind = jnp.floating if _IN_RANGE.get() else jnp.inexact
    if dtype is None or not jnp.issubdtype(dtype, kind):
        raise TypeError(
            f"{name} must be a floating point dtype such as 'bfloat16'"
            f"{names and f', or one of the formats {names}'}, got "
            f"{name}={text_of(value)}"
        )
    if dtype.itemsize < 2:
        raise ValueError(
            f"{name} must have 16 bits or more: without a scale, {dtype.name} cannot "
            "hold numbers as different as gradients are. Use 'bfloat16'"
            f"{names and f', or one of the formats {names}'}, got "
            f"{name}={text_of(value)}"
        )
    return dtype.name


def function_of_step(name: str, value: Any) -> None:
    """Raise if a function that is passed for a number cannot be a schedule."""
    if hasattr(value, "hyperparameters"):
        factory = value.__name__
        raise TypeError(
            f"{name} must be a number or a schedule, got the factory {factory}. Call "
            f"it: {name}={factory}(…)"
        )
    if not callable(value):
        raise TypeError(
            f"{name} must be a function of the step, got {name}={text_of(value)}. For "
            "a number, use jopt.constant_schedule(number)."
        )
    try:
        signature = inspect.signature(value)
    except ValueError:  # of some built-in functions
        return
    try:
        signature.bind(0)
    except TypeError:
        raise TypeError(
            f"{name} must be a number or a function of the step, got "
            f"{name}={abbreviated(value)}, which takes {signature}"
        ) from None


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def text_of(value: Any) -> str:
    """The repr of a value, without addresses, which differ in every run.

    >>> text_of([text_of, object()])
    '[<function text_of>, <object object>]'
    """
    # The repr of a transformation may have several lines, that of its call has one.
    recipe = getattr(value, "recipe", None)
    return _ADDRESS.sub("", repr(value if recipe is None else recipe))


def abbreviated(value: Any) -> str:
    """A short repr for a message."""
    traced = isinstance(value, Tracer)
    text = str(jax.typeof(value)) if traced else " ".join(text_of(value).split())
    hint = f" ({hint})" if (hint := elsewhere(value)) else ""
    return (text if len(text) <= 80 else f"{text[:77]}...") + hint


def shown_function(function: Any) -> str:
    """A function for a message: its name, and where it is written."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:  # a schedule of the library, or an object that can be called
        return abbreviated(function)
    file = os.path.basename(code.co_filename)
    return f"{function.__qualname__} ({file}, line {code.co_firstlineno})"


def one_number(what: str, value: Any, kind: Any = jnp.number) -> None:
    """Raise unless a value is a scalar; it may be traced."""
    shape = getattr(value, "shape", () if isinstance(value, Real) else None)
    if shape == () and isinstance(value, Real):
        float_of(what, value)
    if (
        shape != ()
        or elsewhere(value)
        or not jnp.issubdtype(jnp.result_type(value), kind)
    ):
        allowed = "one whole number" if kind is jnp.integer else "one number"
        raise TypeError(f"{what} must be {allowed}, got {abbreviated(value)}")
