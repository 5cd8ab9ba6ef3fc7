"""Transformations and schedules as plain data for JSON, and back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jopt.values import registry
from jopt.values.limits import inside_data, limited
from jopt.values.numbers import Tunable, tunable
from jopt.values.recipe import Recorded, spread
from jopt.values.text import parsed


# How to read a dict that has one of these keys: the forms of other libraries.
readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}


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
            f"{value!r} has no config, because it was not made by a factory decorated "
            "with @jopt.transformation or @jopt.schedule"
        )
    return _encode(value, "")


def from_config(config: Mapping[str, Any] | str) -> Any:
    """Make the transformation or schedule of a config; the reverse of `to_config`.

    Args:
      config: ``{"name": …, "config": {…}}``; the same as JSON or YAML; a call as text,
        such as a ``repr``; or Keras's ``{"class_name": …, "config": {…}}``, which is
        read by `jopt.interop.keras.deserialize`.

    Returns:
      A value equal to the one that the config was written from.

    Raises:
      ValueError: ``config`` has none of these forms, names an unknown factory, has a
        YAML alias, or is too large or nested too deep.

    >>> import jopt
    >>> jopt.from_config({"name": "sgd", "config": {"learning_rate": 0.1}})
    sgd(learning_rate=0.1)
    >>> jopt.from_config("adamw(learning_rate=3e-4, weight_decay=0.1)")
    adamw(learning_rate=0.0003, weight_decay=0.1)
    """
    if isinstance(config, str):
        config = parsed(config, _callable, registry.function)
    if isinstance(config, Recorded):
        return config
    if not isinstance(config, Mapping):
        raise _not_a_config(config)
    limited(config, inside_data)
    for key, read in readers.items():
        if key in config:
            return read(config)
    return _decode(config)


def _callable(name: str) -> Callable[..., Any] | None:
    """What a config in text may call."""
    return tunable if name == "tunable" else registry.factory(name)


def _not_a_config(value: Any) -> ValueError:
    return ValueError(f'a config is {{"name": …, "config": {{…}}}}, got {value!r}')


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
        f"argument {path!r} cannot be written to a config: {value!r}. Use a regular "
        "expression, a decorated factory, or a function at the top level of a module."
    )


def _function_name(value: Any) -> str | None:
    """The name given with `registry.named`, or ``module:name`` if that finds it."""
    if not inspect.isfunction(value):
        return None
    if registry.function(value.__name__) is value:
        return value.__name__
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    importable = getattr(sys.modules.get(module or ""), name or "-", None)
    return f"{module}:{name}" if importable is value else None


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
        raise _not_a_config(value)
    name = value["name"]
    factory = registry.factory(name) if isinstance(name, str) else None
    if factory is None:
        raise registry.unknown(name)
    given = {n: _decode(x) for n, x in config.items()}
    args, kwargs = spread(inspect.signature(factory).parameters, given)
    return factory(*args, **kwargs)


def _function(name: str) -> Any:
    if named := registry.function(name):
        return named
    module, _, function = name.partition(":")
    # A config is data. It may name functions that the program has imported, but must
    # not make it import others.
    value = getattr(sys.modules.get(module), function, None)
    if not inspect.isfunction(value):
        raise ValueError(f"the config needs {name}: import {module} first")
    return value
