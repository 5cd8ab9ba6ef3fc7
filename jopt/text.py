"""Optimizers as text: a call as it would be written, JSON, or YAML.

    adamw(learning_rate=3e-4, weight_decay=0.1)

What a value's ``repr`` is, this reads. A text is data, not code: it may call factories
of optimizers and schedules, with numbers, texts, lists, dicts and such calls, and no
more.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jopt import checks


def parsed(text: str, factories: Mapping[str, Callable[..., Any]]) -> Any:
    """The value of a call that is written down, or the dict of JSON or YAML.

    Args:
      text: ``"adamw(learning_rate=3e-4)"``; a name alone is a call without arguments.
      factories: What may be called, by name.

    Raises:
      ValueError: It is none of this, or does something else than call factories.

    >>> import jopt
    >>> jopt.from_config("chain(clip(1.0), sgd(cosine_decay_schedule(0.1, 100)))")
    chain(clip(max_delta=1.0), sgd(learning_rate=cosine_decay_schedule(init_value=0.1, \
decay_steps=100)))
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            return json.loads(stripped)
        except json.JSONDecodeError as error:
            raise ValueError(f"this config is no JSON: {error}") from None
    if re.match(r"[\w-]+\s*:", stripped):
        return _yaml(stripped)
    try:
        node = ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        raise ValueError(
            f"{text!r} is no call such as 'adamw(learning_rate=3e-4)': {error.msg} at "
            f"character {error.offset}"
        ) from None
    value = _value(node, text, factories)
    return value() if callable(value) and value in factories.values() else value


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError(
            "to read a config in YAML, install PyYAML: pip install pyyaml"
        ) from None

    class Loader(yaml.SafeLoader):
        """YAML 1.1 takes 3e-4 for a text, YAML 1.2 for the number."""

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", number, list("-+0123456789")
    )
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"this config is no YAML: {error}") from None


def _value(node: ast.expr, text: str, factories: Mapping[str, Any]) -> Any:
    def value(inner: ast.expr) -> Any:
        made = _value(inner, text, factories)
        if callable(made) and made in factories.values():
            raise ValueError(
                f"{ast.unparse(inner)!r} in {text!r} is a factory: call it, as in "
                f"{ast.unparse(inner)}(…)"
            )
        return made

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return -node.operand.value  # type: ignore[union-attr]
        case ast.List(elts=elements):
            return [value(x) for x in elements]
        case ast.Tuple(elts=elements):
            return tuple(value(x) for x in elements)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {value(key): value(x) for key, x in pairs if key is not None}
        case ast.Name(id=name):
            return _named(name, text, factories)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            factory = _named(name, text, factories)
            if factory not in factories.values() or any(
                k.arg is None for k in keywords
            ):
                raise _refused(node, text)
            given = {str(k.arg): value(k.value) for k in keywords}
            return factory(*[value(x) for x in args], **given)
    raise _refused(node, text)


def _named(name: str, text: str, factories: Mapping[str, Any]) -> Any:
    if name in factories:
        return factories[name]
    import jopt

    # Masks such as is_bias_or_norm, which a repr shows by their names.
    public = getattr(jopt, name, None) if name in jopt.__all__ else None
    if inspect.isfunction(public) and "path" in inspect.signature(public).parameters:
        return public
    raise ValueError(
        f"{text!r}: there is no factory {name!r}."
        f"{checks.suggestion(name, factories)} jopt.names() lists all {len(factories)}"
    )


def _refused(node: ast.expr, text: str) -> ValueError:
    return ValueError(
        f"{ast.unparse(node)!r} in {text!r} is no number, text, list, dict, or call of "
        "a factory. A config is data, and does not run code"
    )
