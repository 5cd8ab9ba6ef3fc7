"""Optimizers as text: a call in Python's syntax, JSON, or YAML.

    adamw(learning_rate=3e-4, weight_decay=0.1)

This reads the ``repr`` of any transformation or schedule. A text is data, not code: it
may call factories with numbers, texts, lists, dicts and further such calls, and nothing
else.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jopt.values import registry
from jopt.values.arguments import abbreviated
from jopt.values.limits import limited, within_limits


# What finds a function by its name, or gives None.
Find = Callable[[str], Callable[..., Any] | None]


def parsed(text: str, factory: Find, function: Find) -> Any:
    """Read a call as its value, and JSON or YAML as a dict.

    Args:
      text: ``"adamw(learning_rate=3e-4)"``; a name alone is a call without arguments.
      factory: Finds what may be called.
      function: Finds what may be an argument, such as the mask ``is_bias_or_norm``.

    Raises:
      ValueError: The text is none of these, does more than call factories, has a YAML
        alias, or is too large or nested too deep.

    >>> import jopt
    >>> jopt.from_config("chain(clip(1.0), sgd(cosine_decay_schedule(0.1, 100)))")
    chain(
        clip(max_delta=1.0),
        sgd(learning_rate=cosine_decay_schedule(init_value=0.1, decay_steps=100)),
    )
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            return json.loads(stripped)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"this config is not valid JSON: {error}") from None
    if re.match(r"[\w-]+\s*:", stripped):
        return _yaml(stripped)
    try:
        node = ast.parse(stripped, mode="eval").body
    # The parser itself has limits too, and reports some of them in other ways.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "it is nested too deep"
        if isinstance(error, SyntaxError):
            reason = f"{error.msg} at character {error.offset}"
        raise ValueError(
            f"{abbreviated(text)} is not a call such as 'adamw(learning_rate=3e-4)': "
            f"{reason}"
        ) from None
    limited(node, _inside_call)
    reader = _Reader(text, factory, function)
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    return reader.value(node)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError(
            "to read a config in YAML, install PyYAML: pip install pyyaml"
        ) from None

    class Loader(yaml.SafeLoader):
        """Reads 3e-4 as a number, as YAML 1.2 does; in YAML 1.1 it is a text.

        Refuses aliases: a short text with aliases of aliases stands for a huge config.
        """

        parts = levels = 0

        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise ValueError(
                    f"this config has the alias *{event.anchor} in line "
                    f"{event.start_mark.line + 1}. Write out what it stands for: a "
                    "config may not have aliases"
                )
            self.parts += 1
            self.levels += 1
            within_limits(self.parts, self.levels)
            node = super().compose_node(parent, index)
            self.levels -= 1
            return node

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", number, list("-+0123456789")
    )
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"this config is not valid YAML: {error}") from None


def _inside_call(node: ast.AST) -> Iterable[ast.AST]:
    """What is inside a part of a call; a keyword is no level of its own."""
    for part in ast.iter_child_nodes(node):
        yield part.value if isinstance(part, ast.keyword) else part


class _Reader:
    """Reads the parts of a text, none of which is run as code."""

    def __init__(self, text: str, factory: Find, function: Find):
        self.text, self.factory, self.function = text, factory, function

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.UnaryOp(
                op=ast.USub(), operand=ast.Constant(value=int() | float() as number)
            ):
                return -number
            case ast.List(elts=elements):
                return [self.value(x) for x in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.value(x) for x in elements)
            case ast.Dict(keys=keys, values=values) if None not in keys:
                pairs = zip(keys, values, strict=True)
                return {self.value(k): self.value(x) for k, x in pairs if k is not None}
            case ast.Name(id=name):
                if self.factory(name):
                    raise ValueError(
                        f"{name!r} in {self.text!r} is a factory: call it, as in "
                        f"{name}(…)"
                    )
                if function := self.function(name):
                    return function
                raise ValueError(
                    f"{self.unknown(name)}. A function of your own, such as a mask, "
                    "needs @jopt.config_function, or from_config(…, custom_objects="
                    f"{{{name!r}: {name}}})"
                )
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                if any(k.arg is None for k in keywords) or self.function(name):
                    raise self.refused(node)
                factory = self.factory(name)
                if factory is None:
                    raise self.unknown(name)
                given = {str(k.arg): self.value(k.value) for k in keywords}
                return factory(*[self.value(x) for x in args], **given)
        raise self.refused(node)

    def unknown(self, name: str) -> ValueError:
        return ValueError(f"{self.text!r}: {registry.unknown(name)}")

    def refused(self, node: ast.expr) -> ValueError:
        return ValueError(
            f"{ast.unparse(node)!r} in {self.text!r} is not a number, text, list, "
            "dict, or call of a factory. A config is data, and does not run code"
        )
