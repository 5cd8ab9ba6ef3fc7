"""Transformations and schedules as plain data for JSON, and back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jopt.values import library, registry
from jopt.values.arguments import abbreviated, text_of
from jopt.values.limits import inside_data, limited
from jopt.values.numbers import Tunable, tunable
from jopt.values.recipe import Recorded, spread
from jopt.values.text import parsed


# Functions by the names that a config has for them.
Functions: TypeAlias = Mapping[str, Callable[..., Any]] | None


def to_config(value: Any) -> dict[str, Any]:
    """Write a transformation or schedule as plain data, ready for ``json.dumps``.

    Args:
      value: The result of a decorated factory, however nested.

    Returns:
      ``{"name": …, "config": {argument: …}}``, without the arguments that are defaults.

    Raises:
      TypeError: An argument, such as a lambda, cannot be written as data; the message
        names it.

    >>> import jopt
    >>> jopt.to_config(jopt.adam(jopt.linear_schedule(0.1, 0.0, 100)))["config"]
    {'learning_rate': {'name': 'linear_schedule', 'config': {'init_value': 0.1, \
'end_value': 0.0, 'transition_steps': 100}}}
    """
    if not isinstance(value, Recorded) or value.recipe is None:
        raise TypeError(
            f"{text_of(value)} has no config, because it was not made by a factory "
            "decorated with @jopt.transformation or @jopt.schedule"
        )
    return _encode(value, "")


def from_config(
    config: Mapping[str, Any] | str, *, custom_objects: Functions = None
) -> Any:
    """Make the transformation or schedule of a config; the reverse of `to_config`.

    Args:
      config: ``{"name": …, "config": {…}}``; in short ``{name: {…}}``, or ``{name:
        […]}`` with arguments by position; the same as JSON or YAML; a call as text,
        such as a ``repr``; or Keras's ``{"class_name": …, "config": {…}}``, which is
        read by `jopt.interop.keras.deserialize`.
      custom_objects: Functions that the config may name as arguments, by that name,
        besides those that `config_function` registered.

    Returns:
      A value equal to the one that the config was written from.

    Raises:
      ValueError: ``config`` has none of these forms, names an unknown factory
        or a function that is not registered, has a YAML alias, or is too large or
        nested too deep.

    >>> import jopt
    >>> jopt.from_config({"name": "sgd", "config": {"learning_rate": 0.1}})
    sgd(learning_rate=0.1)
    >>> jopt.from_config("adamw(learning_rate=3e-4, weight_decay=0.1)")
    adamw(learning_rate=0.0003, weight_decay=0.1)
    >>> jopt.from_config({"adamw": {"learning_rate": 3e-4}})
    adamw(learning_rate=0.0003)
    """
    if isinstance(config, str):
        config = parsed(config, _callable, lambda name: _function(name, custom_objects))
    if isinstance(config, Recorded):
        return config
    if not isinstance(config, Mapping):
        raise _not_a_config(config)
    limited(config, inside_data)
    for key, read in library.readers.items():
        if key in config:
            return read(config, custom_objects)
    return _decode(config, custom_objects)


def _callable(name: str) -> Callable[..., Any] | None:
    """What a config in text may call."""
    return tunable if name == "tunable" else registry.factory(name)


def _not_a_config(value: Any) -> ValueError:
    return ValueError(
        'a config is {"name": …, "config": {…}}, or in short {name: {…}}, got '
        f"{abbreviated(value)}"
    )


# A value that JSON does not have is a dict with one key: "$" and its type.


def _encode(value: Any, path: str) -> Any:
    if isinstance(value, Tunable):
        return {"$tunable": _encode(value.initial, path)}
    if isinstance(value, Recorded) and value.recipe is not None:
        given = value.recipe.arguments
        prefix = f"{path}." if path else ""
        config = {n: _encode(x, f"{prefix}{n}") for n, x in given.items()}
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
    if name := _function_name(value):
        return {"$function": name}
    raise TypeError(
        f"argument {path!r} cannot be written to a config: {text_of(value)}. Use a "
        "regular expression, a decorated factory, or a function at the top level of a "
        "module."
    )


def _function_name(value: Any) -> str | None:
    """The registered name, or ``module:name`` if that finds the function."""
    if not inspect.isfunction(value):
        return None
    if registry.function(value.__name__) is value:
        return value.__name__
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    importable = getattr(sys.modules.get(module or ""), name or "-", None)
    return f"{module}:{name}" if importable is value else None


def _decode(value: Any, functions: Functions) -> Any:
    def decoded(x):
        return _decode(x, functions)

    if isinstance(value, list):
        return [decoded(x) for x in value]
    if not isinstance(value, Mapping):
        return value
    if "$tuple" in value:
        return tuple(decoded(x) for x in value["$tuple"])
    if "$dict" in value:
        return {decoded(n): decoded(x) for n, x in value["$dict"]}
    if "$tunable" in value:
        return tunable(value["$tunable"])
    if "$function" in value:
        name = value["$function"]
        function = _function(name, functions) if isinstance(name, str) else None
        if function is None:
            raise _not_registered(name)
        return function
    name, config = _name_and_config(value)
    factory = registry.factory(name) if isinstance(name, str) else None
    if factory is None:
        raise registry.unknown(name)
    if isinstance(config, list):
        return factory(*map(decoded, config))
    given = {n: decoded(x) for n, x in config.items()}
    args, kwargs = spread(inspect.signature(factory).parameters, given)
    return factory(*args, **kwargs)


def _name_and_config(value: Mapping[str, Any]) -> tuple[Any, Any]:
    """The parts of ``{"name": name, "config": config}``, or of ``{name: config}``."""
    if len(value) == 1 and "name" not in value:
        ((name, config),) = value.items()
        config = {} if config is None else config
        if isinstance(config, Mapping | list):
            return name, config
    config = value.get("config", {})
    is_long = {"name"} <= value.keys() <= {"name", "config"}
    if not is_long or not isinstance(config, Mapping):
        raise _not_a_config(value)
    return value["name"], config


def _function(name: str, functions: Functions) -> Callable[..., Any] | None:
    """The function that a config means; it may name none but those meant for it."""
    if functions and name in functions:
        return functions[name]
    module, _, last = name.rpartition(":")
    function = registry.function(last)
    # Before it was registered, the function was written with its module.
    is_it = function is not None and module in ("", function.__module__)
    return function if is_it else None


def _not_registered(name: Any) -> ValueError:
    last = name.rpartition(":")[2] if isinstance(name, str) else ""
    shown = last if last.isidentifier() else "function"
    return ValueError(
        f"the config names the function {name!r}, which is not registered for configs. "
        f"If you trust it, decorate it with @jopt.config_function and import its "
        f"module, or pass from_config(…, custom_objects={{{name!r}: {shown}}})"
    )
