"""How large a config may be. Configs may come from others, and must not hang a program.

The limits are far above the needs of real configs, and low enough that the recursive
functions that read and compare configs do not exhaust Python's stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


MOST_PARTS = 100_000
MOST_LEVELS = 100


def limited(config: Any, inside: Callable[[Any], Iterable[Any]]) -> None:
    """Raise if a config has too many parts or levels, before anything is made of it.

    Args:
      config: The root of the config.
      inside: Returns what is directly inside a part.

    Raises:
      ValueError: There are more than `MOST_PARTS` parts, each counted as often as it
        occurs, or more than `MOST_LEVELS` levels.

    >>> limited({"name": "sgd", "config": {}}, inside_data)
    """
    pending, parts = [(config, 1)], 0
    while pending:
        part, level = pending.pop()
        parts += 1
        within_limits(parts, level)
        pending += [(x, level + 1) for x in inside(part)]


def within_limits(parts: int, levels: int) -> None:
    """Raise if a config has too many parts or levels."""
    if levels > MOST_LEVELS:
        raise ValueError(
            f"this config is nested more than {MOST_LEVELS} levels deep, which no "
            "optimizer needs. Make it flatter, or build the optimizer in Python"
        )
    if parts > MOST_PARTS:
        raise ValueError(
            f"this config has more than {MOST_PARTS} parts, which no optimizer needs. "
            "Make it smaller, or build the optimizer in Python"
        )


def inside_data(part: Any) -> Iterable[Any]:
    """What is inside a dict or list of plain data."""
    if isinstance(part, Mapping):
        return part.values()
    return part if isinstance(part, list | tuple) else ()
