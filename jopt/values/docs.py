"""What ``help()`` shows of a factory: arguments that are documented once, and types.

An entry of an ``Args:`` section may refer to another factory for one argument or more:

    Args:
      learning_rate: The step size.
      b1, b2, eps: See `scale_by_adam`.

The source says it once; ``help()`` shows the text of each argument.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any


_ENTRY = re.compile(r"  (\S[^:]*): *(.*)")
_REFERENCE = re.compile(r"See `([\w.]+)`\.?")


def inherited(doc: str, find: Callable[[str], Any]) -> str:
    """A docstring in which the text of other factories stands in place of references.

    Args:
      doc: The docstring.
      find: Returns the function of a name, or None.

    Returns:
      The docstring without its indentation. A reference to something that does not
      exist, or does not document the argument, stays.

    >>> def rule(decay): ...
    >>> rule.__doc__ = "A rule.\\n\\nArgs:\\n  decay: In [0, 1)."
    >>> doc = "Use it.\\n\\nArgs:\\n  decay: See `rule`."
    >>> print(inherited(doc, {"rule": rule}.get))
    Use it.
    <BLANKLINE>
    Args:
      decay: In [0, 1).
    """
    lines = inspect.cleandoc(doc).splitlines()
    start, stop = _arguments(lines)
    shown = []
    for names, text in _entries(lines[start:stop]):
        reference = _REFERENCE.fullmatch(" ".join(x.strip() for x in text))
        function = reference and find(reference[1].rpartition(".")[2])
        texts = documented_arguments(function) if function else {}
        for name in names if texts.keys() >= set(names) else [", ".join(names)]:
            first, *rest = texts.get(name, text)
            shown += [f"  {name}: {first}", *rest]
    return "\n".join(lines[:start] + shown + lines[stop:])


def documented_arguments(function: Callable[..., Any]) -> dict[str, list[str]]:
    """The lines of text about each argument in a function's docstring, by name."""
    lines = (inspect.getdoc(function) or "").splitlines()
    start, stop = _arguments(lines)
    entries = _entries(lines[start:stop])
    return {name: text for names, text in entries for name in names}


def _arguments(lines: list[str]) -> tuple[int, int]:
    """The first line of the ``Args:`` section and the one after its last."""
    if "Args:" not in lines:
        return len(lines), len(lines)
    start = lines.index("Args:") + 1
    stop = start
    while stop < len(lines) and lines[stop].startswith(" "):
        stop += 1
    return start, stop


def _entries(lines: list[str]) -> list[tuple[list[str], list[str]]]:
    """The names and the text of each entry of an ``Args:`` section."""
    entries: list[tuple[list[str], list[str]]] = []
    for line in lines:
        if entry := _ENTRY.fullmatch(line):
            entries.append((entry[1].split(", "), [entry[2]]))
        elif entries:
            entries[-1][1].append(line)
    return entries


class Verbatim(str):
    """An annotation that ``help()`` shows as it stands in the source."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown_signature(
    function: Callable[..., Any], returns: str = ""
) -> inspect.Signature:
    """A signature for ``help()``, with annotations as their source has them.

    Evaluated, `ScalarOrSchedule` alone is a line of text for each argument.

    Args:
      function: Any function.
      returns: The annotation of what it returns, if it is not the source's.
    """
    signature = inspect.signature(function)

    def verbatim(annotation: Any) -> Any:
        return Verbatim(annotation) if isinstance(annotation, str) else annotation

    parameters = [
        p.replace(annotation=verbatim(p.annotation))
        for p in signature.parameters.values()
    ]
    result = returns or signature.return_annotation
    return signature.replace(parameters=parameters, return_annotation=verbatim(result))
