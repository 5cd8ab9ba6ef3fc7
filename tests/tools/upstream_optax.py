"""A pytest plugin that puts `jopt.interop.optax` in the place of optax.

With `-p tests.tools.upstream_optax` and the variable OPTAX_CHECKOUT, the tests of a
checkout of optax import the door wherever they name optax or one of its modules. Of the
checkout itself they get only its tests and `test_utils`; see ``upstream_of_optax.py``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any


CHECKOUT = Path(os.environ["OPTAX_CHECKOUT"])
DOOR = "jopt.interop.optax"
# The public modules of the door, in which the names of a private module of optax are.
PUBLIC = (
    *("", ".contrib", ".losses", ".schedules", ".transforms", ".tree", ".tree_utils"),
    *(".projections", ".second_order", ".assignment", ".perturbations"),
    *(".microbatching", ".numerics", ".injecting", ".linesearch"),
)


# What tests use to test, from optax's private modules.
TOOLS = {
    ("optax._src.utils", "x64_precision"),
    ("optax._src.utils", "log_compilations"),
    ("optax._src.numerics", "abs_sq"),
}


@functools.cache
def _file(name: str) -> Any:
    """A private module of the checkout itself."""
    path = CHECKOUT / Path(*name.split(".")).with_suffix(".py")
    spec: Any = importlib.util.spec_from_file_location(f"private {name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Module(types.ModuleType):
    """A module of optax: the names of the door."""

    def __init__(self, name: str, door: list[Any], path: Path | None):
        super().__init__(name)
        self.__dict__["door"] = door
        if path:
            self.__path__ = [str(path)]

    def __getattr__(self, name: str) -> Any:
        submodule = sys.modules.get(f"{self.__name__}.{name}")
        if submodule is not None:
            return submodule
        for module in self.__dict__["door"]:
            if name in dir(module) or name in vars(module):
                return getattr(module, name)
        if (self.__name__, name) in TOOLS:
            return getattr(_file(self.__name__), name)
        raise AttributeError(f"the door has no {name}, which {self.__name__} has")


def _load(name: str) -> Any:
    try:
        return importlib.import_module(DOOR + name)
    except ModuleNotFoundError:
        return None


def swap() -> None:
    """Put the door in the place of optax and of each of its modules."""
    doors = {name: _load(name) for name in PUBLIC}
    doors = {name: module for name, module in doors.items() if module is not None}
    for path in sorted(CHECKOUT.glob("optax/**/*.py")):
        relative = path.relative_to(CHECKOUT).with_suffix("")
        parts = relative.parts
        is_package = parts[-1] == "__init__"
        if parts[-1].endswith("_test") or parts[-1] == "test_utils":
            continue
        name = ".".join(parts[:-1] if is_package else parts)
        public = name.removeprefix("optax")
        first = [doors[public]] if public in doors else []
        # A private module of a package: the package's names first.
        package = public.rpartition(".")[0]
        first += [doors[package]] if package in doors and package else []
        found = [*first, *(m for m in doors.values() if m not in first)]
        folder = path.parent if is_package else None
        sys.modules[name] = Module(name, found, folder)


swap()
