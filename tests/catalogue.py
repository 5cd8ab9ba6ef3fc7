"""What the test files declare: cases for the laws, twins, and rows of parity.

A test file takes part with any of these names at its top level; nothing else lists it:

- ``CASES``, a list of `Case`: what the laws are tested for. The twin of a case is the
  function of the same name in the same file.
- ``ROWS``, a tuple of `Row`: which settings equal which settings of other libraries.
- ``WITHOUT_ROW``, a dict from factories that no case fits to the reason.

Such a file must not import this module, or one that does, such as `test_laws`; and it
must be importable with one device, because scripts that the tests start import it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tests
from tests.laws.case import Case
from tests.parity.row import WIDTHS, Row


DECLARATION = re.compile(r"^(CASES|ROWS|WITHOUT_ROW)\b.*= ", re.M)


def declarations() -> dict[str, dict[str, Any]]:
    """The declared values by name and by module; no other modules are imported."""
    found: dict[str, dict[str, Any]] = {"CASES": {}, "ROWS": {}, "WITHOUT_ROW": {}}
    modules = pkgutil.walk_packages(tests.__path__, "tests.")
    for module in sorted(module.name for module in modules):
        path = Path(tests.__path__[0], *module.split(".")[1:]).with_suffix(".py")
        if not path.name.startswith("test_"):
            continue
        for name in DECLARATION.findall(path.read_text()):
            found[name][module] = getattr(importlib.import_module(module), name)
    return found


def by_name(pairs: Iterable[tuple[Any, tuple[str, Any]]], what: str) -> dict[Any, Any]:
    """A dict of values by key, from (key, (module, value)); no key twice."""
    homes: dict[Any, str] = {}
    values = {}
    for key, (module, value) in pairs:
        if key in homes:
            raise ValueError(f"two {what} {key!r}: in {homes[key]} and in {module}")
        homes[key], values[key] = module, value
    return values


def file_of(factory: Callable[..., Any]) -> str:
    """The test file of a factory's module."""
    *rooms, module = factory.__module__.split(".")
    return "/".join(["tests", *rooms[1:], f"test_{module}.py"])


def key(row: Row) -> str:
    """The name of a row in the file of measured deviations."""
    return f"{row.library}: {row.recipe} = {row.jopt}"


def rows_of(library: str) -> tuple[Row, ...]:
    """The rows against this library."""
    return tuple(row for row in ROWS if row.library == library)


DECLARED = declarations()
CASES: list[Case] = [case for cases in DECLARED["CASES"].values() for case in cases]
# One case of each factory, of none that is a part of another one.
ONCE = list({case.name: case for case in reversed(CASES) if not case.part}.values())
OPTIMIZERS = [case for case in CASES if case.is_optimizer]
WITHOUT_ROW: dict[str, str] = by_name(
    (
        (name, (module, reason))
        for module, reasons in DECLARED["WITHOUT_ROW"].items()
        for name, reason in reasons.items()
    ),
    "reasons for no case of",
)
TWINS: dict[str, Callable[..., Iterator[Any]]] = by_name(
    (
        (name, (module, function))
        for module, cases in DECLARED["CASES"].items()
        for name in sorted({case.name for case in cases})
        # What a file imports is the twin of another file.
        if (function := vars(sys.modules[module]).get(name))
        and function.__module__ == module
    ),
    "twins named",
)
# By the name of the module that is tested, for the generator of golden numbers.
GROUPS: dict[str, tuple[Row, ...]] = by_name(
    (
        (module.rpartition(".test_")[2], (module, tuple(rows)))
        for module, rows in DECLARED["ROWS"].items()
    ),
    "files of rows named",
)
ROWS: tuple[Row, ...] = tuple(
    by_name(
        (
            ((row.library, row.name), (module, row))
            for module, rows in DECLARED["ROWS"].items()
            for row in rows
        ),
        "rows named",
    ).values()
)

__all__ = [
    "CASES",
    "GROUPS",
    "ONCE",
    "OPTIMIZERS",
    "ROWS",
    "TWINS",
    "WIDTHS",
    "WITHOUT_ROW",
    "Case",
    "Row",
    "file_of",
    "key",
    "rows_of",
]
