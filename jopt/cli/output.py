"""What a command writes: tables and JSON to stdout, errors to stderr."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer


class UsageError(Exception):
    """An argument that is wrong: exit status 2, where a failure has 1."""


def reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command: its errors are messages, without a traceback.

    What is caught is what the library raises about arguments, files and missing
    libraries. Any other exception is a bug, whose traceback is wanted.
    """

    @functools.wraps(command)
    def run(*args, **kwargs):
        # An ASCII terminal shows ? for a letter that it lacks.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # `jopt list | head`, of which typer says nothing
            raise
        except UsageError as error:
            complain(error)
            raise typer.Exit(2) from None
        except (ValueError, TypeError, OSError, ImportError) as error:
            complain(error)
            raise typer.Exit(1) from None

    return run


def complain(message: object) -> None:
    """Write a message to stderr."""
    print(f"jopt: {message}", file=sys.stderr)


def write_json(data: Any) -> None:
    """Write data to stdout as JSON."""
    print(json.dumps(data, indent=2, allow_nan=False))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows in columns, as wide as the terminal; a file gets whole lines.

    Numbers are at the right. The last column takes what is left of the width.
    """
    from rich.table import Table

    rows = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        right = bool(rows) and all(isinstance(r[i], int | float) for r in rows)
        last = i == len(columns) - 1
        table.add_column(
            column,
            justify="right" if right else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(f"{x:,}" if isinstance(x, int) else str(x) for x in row))
    console = _console()
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def write(thing: Any) -> None:
    """Write something that says itself how rich shows it."""
    _console().print(thing)


def write_title(text: str) -> None:
    """Write a line that stands out in a terminal."""
    _console().print(text, style="bold")


def _console() -> Any:
    from rich.console import Console

    # rich itself knows NO_COLOR, COLUMNS and what a terminal can show.
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    return Console(markup=False, highlight=False, emoji=False, width=wide)
