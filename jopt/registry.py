"""Optimizers by name, and as data for JSON."""

from __future__ import annotations

import fnmatch
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jopt import checks
from jopt.hyperparams import Tunable, tunable
from jopt.recipe import Recorded, spread
from jopt.text import parsed


_factories: dict[str, Callable[..., Any]] = {}


def register(factory: Callable[..., Any]) -> None:
    """Make a factory known by its name; the decorators do it."""
    name = factory.__name__
    known = _factories.get(name)
    # A module that is imported again, or a notebook cell that is run again, redefines.
    if known is not None and known.__module__ != factory.__module__:
        raise ValueError(
            f"{known.__module__} has a factory {name!r} already: choose another name "
            f"than {factory.__module__}.{factory.__qualname__}'s"
        )
    _factories[name] = factory


def names(pattern: str = "*") -> list[str]:
    """The registered names of transformations, optimizers and schedules.

    Args:
      pattern: Shell-style, ``"adam*"``.

    Returns:
      The names, sorted.

    >>> import jopt
    >>> jopt.names("adamax*")
    ['adamax', 'adamaxw']
    """
    return sorted(fnmatch.filter(_factories, pattern))


def get(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """What the factory of this name makes of the arguments.

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
    return _factory(name)(*args, **kwargs)


def to_config(value: Any) -> dict[str, Any]:
    """A transformation or schedule as plain data, ready for ``json.dumps``.

    Args:
      value: What a decorated factory returned, however nested.

    Returns:
      ``{"name": …, "config": {argument: …}}`` with the arguments that are not defaults.

    Raises:
      TypeError: An argument cannot be written down, such as a lambda; the message names
        it.

    >>> import jopt
    >>> jopt.to_config(jopt.adam(jopt.linear_schedule(0.1, 0.0, 100)))["config"]
    {'learning_rate': {'name': 'linear_schedule', 'config': {'init_value': 0.1, \
'end_value': 0.0, 'transition_steps': 100}}}
    """
    if not isinstance(value, Recorded) or value.recipe is None:
        raise TypeError(
            f"{value!r} has no config: it was not made by a factory that is decorated "
            "with @jopt.transformation or @jopt.schedule"
        )
    return _encode(value, "")


def from_config(config: Mapping[str, Any] | str) -> Any:
    """The transformation or schedule of a config; the reverse of `to_config`.

    Args:
      config: ``{"name": …, "config": {…}}``; that as JSON or YAML; a call as text, such
        as a ``repr``; or a dict of Keras, ``{"class_name": …, "config": {…}}``, which
        gives what `jopt.interop.keras.deserialize` does. It is not changed.

    Returns:
      A value equal to the one the config was made from.

    Raises:
      ValueError: An unknown name, or no config.

    >>> import jopt
    >>> jopt.from_config({"name": "sgd", "config": {"learning_rate": 0.1}})
    sgd(learning_rate=0.1)
    >>> jopt.from_config("adamw(learning_rate=3e-4, weight_decay=0.1)")
    adamw(learning_rate=0.0003, weight_decay=0.1)
    """
    if isinstance(config, str):
        config = parsed(config, _factories | {"tunable": tunable})
    if isinstance(config, Recorded):
        return config
    if isinstance(config, Mapping) and "class_name" in config:
        from jopt.interop.keras import deserialize

        return deserialize(config)
    if not isinstance(config, Mapping):
        raise _no_config(config)
    return _decode(config)


def _no_config(value: Any) -> ValueError:
    return ValueError(f'a config is {{"name": …, "config": {{…}}}}, got {value!r}')


# Values that JSON does not have are dicts with one key, "$" and what they are.


def _encode(value: Any, path: str) -> Any:
    if isinstance(value, Tunable):
        return {"$tunable": _encode(value.initial, path)}
    if isinstance(value, Recorded) and value.recipe is not None:
        arguments = value.recipe.arguments
        prefix = f"{path}." if path else ""
        config = {n: _encode(x, f"{prefix}{n}") for n, x in arguments.items()}
        return {"name": value.recipe.name, "config": config}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_encode(x, f"{path}[{i}]") for i, x in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": [_encode(x, f"{path}[{i}]") for i, x in enumerate(value)]}
    if isinstance(value, Mapping):
        items = [
            [_encode(n, path), _encode(x, f"{path}[{n!r}]")] for n, x in value.items()
        ]
        return {"$dict": items}
    if name := _importable_name(value):
        return {"$function": name}
    raise TypeError(
        f"argument {path!r} cannot be written to a config: {value!r}. Use a regular "
        "expression, a decorated factory, or a function at the top level of a module."
    )


def _importable_name(value: Any) -> str | None:
    """``module:name`` of a function at the top level of a module."""
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    found = getattr(sys.modules.get(module or ""), name or "-", None)
    is_named = inspect.isfunction(value) and found is value
    return f"{module}:{name}" if is_named else None


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(x) for x in value]
    if not isinstance(value, Mapping):
        return value
    if "$tuple" in value:
        return tuple(_decode(x) for x in value["$tuple"])
    if "$dict" in value:
        return {_decode(n): _decode(x) for n, x in value["$dict"]}
    if "$tunable" in value:
        return tunable(value["$tunable"])
    if "$function" in value:
        return _function(value["$function"])
    config = value.get("config", {})
    if not {"name"} <= value.keys() <= {"name", "config"} or not isinstance(
        config, Mapping
    ):
        raise _no_config(value)
    factory = _factory(value["name"])
    arguments = {n: _decode(x) for n, x in config.items()}
    args, kwargs = spread(inspect.signature(factory).parameters, arguments)
    return factory(*args, **kwargs)


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    # A config is data: it may name what the program has, not make it import things.
    found = getattr(sys.modules.get(module), function, None)
    if not inspect.isfunction(found):
        raise ValueError(f"the config needs {name}: import {module} first")
    return found


def _factory(name: str) -> Callable[..., Any]:
    if not isinstance(name, str) or name not in _factories:
        hint = checks.suggestion(name, _factories) if isinstance(name, str) else ""
        raise ValueError(
            f"there is no factory {name!r}.{hint} jopt.names() lists all "
            f"{len(_factories)}; one's own module has to be imported first."
        )
    return _factories[name]
