"""A package's public page: the names in its stub, each loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazy_loader

from jopt.values.spelling import suggestion


Page = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def public_page(package: str, file: str) -> Page:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, from its ``.pyi``.

    Type checkers, completion and the program thus read the same list of names.

    Args:
      package: The package's ``__name__``.
      file: The package's ``__file__``; the stub is beside it.

    Returns:
      The three, to be assigned to those names.
    """
    load, listing, names = lazy_loader.attach_stub(package, file)

    def __getattr__(name):
        if name in names:
            return load(name)
        # Python itself asks for many names with underscores, and needs no advice.
        hint = "" if name.startswith("_") else suggestion(name, names)
        raise AttributeError(f"module {package!r} has no attribute {name!r}.{hint}")

    return __getattr__, listing, names
