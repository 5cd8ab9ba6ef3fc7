"""Factories by name, and the functions that a config may name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

from jopt.values import arguments, library
from jopt.values.arguments import suggestion, text_of


F = TypeVar("F", bound=Callable[..., Any])

# The kinds of things that a factory makes.
Kind = Literal["optimizer", "schedule", "transform", "wrapper"]

_factories: dict[str, Any] = {}
_functions: dict[str, Callable[..., Any]] = {}


def register(factory: Callable[..., Any]) -> None:
    """Make a factory known by its name; the decorators do it.

    Raises:
      ValueError: Another module has a factory of this name.
    """
    _add(_factories, factory, "factory")


def config_function(function: F) -> F:
    """Decorate a function, such as a mask or a schedule, that configs may name.

    A config may come from others, so it may name only functions that are meant for it.
    `to_config` writes the function's name; `from_config` finds it once the module of
    the function has been imported.

    Args:
      function: A function with a name, such as ``(path, leaf) -> bool``.

    Returns:
      The function itself.

    Raises:
      TypeError: It is not a function with a name, as a lambda is not.
      ValueError: Another module has a function of this name.

    >>> import jopt
    >>> @jopt.config_function
    ... def is_decoder(path, leaf):
    ...     return path.startswith("decoder/")
    >>> tx = jopt.adamw(1e-3, mask=is_decoder)
    >>> jopt.from_config(jopt.to_config(tx)) == tx
    True
    """
    name = getattr(function, "__name__", "")
    given: Any = function
    if not inspect.isfunction(given) or not name.isidentifier():
        raise TypeError(
            "config_function decorates a function that def has given a name, got "
            f"{text_of(function)}"
        )
    _add(_functions, function, "function")
    return function


def _add(known: dict[str, Any], function: Callable[..., Any], what: str) -> None:
    name, module = function.__name__, function.__module__
    owner = getattr(known.get(name), "__module__", None)
    if owner is None and name in library.names and not module.startswith("jopt."):
        owner = "jopt"
    # A module that is imported again, or a notebook cell that is run again, redefines.
    if owner is not None and owner != module:
        raise ValueError(
            f"{owner} has a {what} {name!r} already: choose another name than "
            f"{module}.{function.__qualname__}'s"
        )
    known[name] = function


def public(name: str) -> Any:
    """What the library has under this name, or None."""
    return library.load(name) if name in library.names else None


def factory(name: str) -> Callable[..., Any] | None:
    """The factory of this name, or None."""
    if name not in _factories and public(name) is None:
        library.load_doors()
    return _factories.get(name)


def function(name: str) -> Callable[..., Any] | None:
    """The function of this name that `config_function` registered, or None."""
    if name not in _functions:
        public(name)
    return _functions.get(name)


def factories() -> dict[str, Any]:
    """All factories by name; imports the modules that have not been needed so far."""
    for name in library.names:
        public(name)
    return dict(_factories)


def unknown(name: Any) -> ValueError:
    """The error for a name that no factory has."""
    known = names()
    hint = suggestion(name, known) if isinstance(name, str) else ""
    return ValueError(
        f"there is no factory {text_of(name)}.{hint} jopt.names() lists all "
        f"{len(known)}; your own module has to be imported first"
    )


def names(pattern: str = "*", *, kind: Kind | None = None) -> list[str]:
    """List the registered names of transformations, optimizers and schedules.

    Args:
      pattern: Shell-style, such as ``"adam*"``.
      kind: ``"optimizer"``, ``"schedule"``, ``"transform"`` or ``"wrapper"``; None
        lists factories of all kinds, and those of masks.

    Returns:
      The names, sorted.

    Raises:
      ValueError: ``kind`` is none of these.

    >>> import jopt
    >>> jopt.names("adamax*")
    ['adamax', 'adamaxw']
    >>> jopt.names("*clip*", kind="optimizer")
    []
    """
    arguments.one_of((None, *get_args(Kind)), kind=kind)
    return sorted(
        name
        for name, factory in factories().items()
        if fnmatch.fnmatch(name, pattern) and kind in (None, factory.kind)
    )


def get(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call the factory of this name.

    Args:
      name: A registered name.
      *args: The factory's arguments.
      **kwargs: The factory's arguments.

    Returns:
      A transformation or schedule.

    Raises:
      ValueError: No factory has this name.

    >>> import jopt
    >>> jopt.get("sgd", learning_rate=0.1)
    sgd(learning_rate=0.1)
    """
    make = factory(name) if isinstance(name, str) else None
    if make is None:
        raise unknown(name)
    return make(*args, **kwargs)
