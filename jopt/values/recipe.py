"""Values that know how they were made.

A transformation, a schedule and a tunable number are each the result of a call of a
factory. They keep that call as their recipe; from it come ``repr``, ``==``, ``hash``,
``pickle``, ``copy`` and (in ``config.py``) the JSON config. Equal calls make equal
values, so a rebuilt optimizer reuses everything that was compiled for the first one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.values.arguments import text_of


LINE = 88  # columns, after which the repr of a transformation is wrapped


class Recipe:
    """A factory, with the arguments of its call that differ from the defaults."""

    def __init__(self, factory: Callable[..., Any], arguments: Mapping[str, Any]):
        self.factory = factory
        self.name = factory.__name__
        self.parameters = inspect.signature(factory).parameters
        self.arguments = {
            name: value
            for name, value in arguments.items()
            if not self._is_default(name, value)
        }
        self.key = (factory, freeze(self.arguments))

    @functools.cached_property
    def hash(self) -> int:
        """The hash of the key, which `jit` asks for in every call."""
        return hash(self.key)

    def _is_default(self, name: str, value: Any) -> bool:
        parameter = self.parameters[name]
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return not value
        return freeze(value) == freeze(parameter.default)

    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The ``(args, kwargs)`` of the call."""
        return spread(self.parameters, self.arguments)

    def __repr__(self) -> str:
        args, kwargs = self.call()
        shown = [shown_argument(value) for value in args]
        shown += [f"{name}={shown_argument(value)}" for name, value in kwargs.items()]
        return f"{self.name}({', '.join(shown)})"


def spread(
    parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn arguments by parameter name into the ``(args, kwargs)`` of a call."""
    args, kwargs = (), {}
    for name, value in arguments.items():
        kind = parameters[name].kind if name in parameters else None
        if kind is inspect.Parameter.VAR_POSITIONAL:
            args = tuple(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            kwargs |= value
        else:
            kwargs[name] = value
    return args, kwargs


class Recorded:
    """A value with a recipe; without one it equals only itself."""

    recipe: Recipe | None = None

    def __repr__(self) -> str:
        if self.recipe is None:
            return f"<{type(self).__name__} without a recipe>"
        return repr(self.recipe)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Recorded) or self.recipe is None:
            return self is other
        return other.recipe is not None and self.recipe.key == other.recipe.key

    def __ne__(self, other: object) -> bool:  # tuple, a base of some, defines another
        return not self == other

    def __hash__(self) -> int:
        return id(self) if self.recipe is None else self.recipe.hash

    def __reduce__(self) -> tuple[Any, ...]:
        if self.recipe is None:
            raise TypeError(
                f"{self!r} cannot be pickled, because no factory made it. Decorate the "
                "function that returns it with @jopt.transformation or @jopt.schedule."
            )
        return _make, (self.recipe.factory, *self.recipe.call())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def made_from(value: Any) -> list[Any]:
    """The arrays, numbers, functions and values in the call that made a value."""
    recipe = getattr(value, "recipe", None)
    return [] if recipe is None else jax.tree.leaves(recipe.arguments)


def is_traced(value: Any) -> bool:
    """Whether a value is, or was made from, something that JAX traces."""
    return isinstance(value, Tracer) or any(map(is_traced, made_from(value)))


def _make(
    factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return factory(*args, **kwargs)


def shown_argument(value: Any) -> str:
    """An argument as it stands in the ``repr`` of a call, in one line."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__qualname__
    if isinstance(value, jax.Array) and value.ndim == 0:
        return str(value)
    if type(value) in _CLOSING:
        opening, items, closing = _items(value)
        last = "," * (type(value) is tuple and len(value) == 1)
        inside = ", ".join(prefix + shown_argument(x) for prefix, x in items)
        return f"{opening}{inside}{last}{closing}"
    return text_of(value)


_CLOSING = {tuple: ")", list: "]", dict: "}"}


def _items(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """How the text of a call or container begins, what is in it, and how it ends."""
    recipe = getattr(value, "recipe", None)
    if recipe is not None:
        args, kwargs = recipe.call()
        items = [("", x) for x in args] + [(f"{n}=", x) for n, x in kwargs.items()]
        return f"{recipe.name}(", items, ")"
    closing = _CLOSING.get(type(value), "")
    if type(value) is dict:
        return "{", [(f"{shown_argument(n)}: ", x) for n, x in value.items()], closing
    return {")": "(", "]": "[", "": ""}[closing], [("", x) for x in value], closing


def wrapped(value: Any, start: int = 0, indent: int = 0, end: int = 0) -> str:
    """The text of a call in lines that are not too long, as a formatter breaks them.

    Args:
      value: What the call makes, or one of its arguments.
      start: The column in which the text begins.
      indent: The indentation of the line that it begins in.
      end: How many characters follow it.
    """
    text = shown_argument(value)
    is_call = getattr(value, "recipe", None) is not None
    if start + len(text) + end <= LINE or not (is_call or type(value) in _CLOSING):
        return text
    opening, items, closing = _items(value)
    if not items:
        return text
    inner = " " * (indent + 4)
    lines = [
        f"{inner}{prefix}{wrapped(x, len(inner + prefix), indent + 4, 1)},\n"
        for prefix, x in items
    ]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def freeze(value: Any) -> Hashable:
    """A hashable key of a value; keys are equal exactly if the values are."""
    if isinstance(value, Recorded):
        return value
    if isinstance(value, Tracer):
        return id(value)
    if isinstance(value, jax.Array) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        data = jax.random.key_data(value)
        return str(jax.random.key_impl(value)), freeze(data)
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        return str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, Mapping):
        items = [(freeze(name), freeze(item)) for name, item in value.items()]
        return type(value), frozenset(items)
    if isinstance(value, list | tuple):
        return type(value), tuple(freeze(item) for item in value)
    try:
        hash(value)
        return type(value), value
    except TypeError:
        leaves, treedef = jax.tree.flatten(value)
        if leaves == [value]:  # a leaf for JAX, with nothing inside to compare
            return id(value)
        return treedef, tuple(freeze(leaf) for leaf in leaves)
