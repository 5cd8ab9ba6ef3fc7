"""The structure of the library and of its tests: imports, pages, folders."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import jopt


ROOT = Path(__file__).parents[2]
LIBRARY, TESTS = ROOT / "jopt", ROOT / "tests"
PACKAGES = ["jopt", "jopt.tree", "jopt.checkpoint", "jopt.projections", "jopt.losses"]
PACKAGES.append("jopt.sharding")
PACKAGES += ["jopt.schedules", "jopt.transforms", "jopt.inspect", "jopt.logs"]
PACKAGES += ["jopt.plot", "jopt.testing", "jopt.interop", "jopt.interop.flax"]
PACKAGES += ["jopt.interop.keras", "jopt.interop.optax", "jopt.interop.optax.contrib"]
PACKAGES += ["jopt.interop.torch", "jopt.interop.torch.lr_scheduler"]
# Folders of tests that are about no single room.
EXTRAS = {"laws", "parity", "twins", "benchmarks", "tools", "docs", "benchmarks/arena"}
OPTIONAL = ["chex", "flax", "h5py", "keras", "matplotlib", "optax", "orbax", "sklearn"]
OPTIONAL += ["tensorflow", "torch"]


# Imports.


@functools.cache
def files() -> dict[str, Path]:
    """The file of each module, by the module's name."""
    found = {}
    for path in LIBRARY.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import, also those in functions; but none that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from imports(node)


def imported(module: str) -> set[str]:
    """The modules of the library that a module imports by name."""
    path = files()[module]
    found = set()
    for node in imports(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            package = (
                module if path.name == "__init__.py" else module.rpartition(".")[0]
            )
            if node.level > 1:
                package = package.rsplit(".", node.level - 1)[0]
            base = node.module or ""
            if node.level:
                base = f"{package}.{base}".rstrip(".")
            names = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in files() else base
                for alias in node.names
            ]
        found |= {name for name in names if name in files()}
    return found - {module}


def test_no_modules_import_each_other() -> None:
    graph = {module: imported(module) for module in files()}
    assert sum(map(len, graph.values())) > 300
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"an import cycle: {' <- '.join(error.args[1])}")


def run(code: str) -> list[str]:
    """The words that a program prints."""
    command = [sys.executable, "-c", f"import sys\n{code}"]
    return subprocess.check_output(command, text=True, cwd=ROOT).split()


def test_importing_jopt_loads_no_algorithm_and_no_optional_library() -> None:
    loaded = run("import jopt; print(*sys.modules)")
    assert "jopt" in loaded
    assert not [m for m in loaded if m.startswith("jopt.algorithms")]
    assert not {m.partition(".")[0] for m in loaded} & {*OPTIONAL, "jax"}


def test_an_optimizer_loads_what_it_is_made_of_and_no_more() -> None:
    loaded = run("import jopt; jopt.adamw; print(*sys.modules)")
    ours = [m for m in loaded if m.partition(".")[0] == "jopt"]
    assert "jopt.algorithms.adam" in ours
    assert len(ours) <= 58, sorted(ours)


# Pages of public names.


def page(package: str) -> list[str]:
    """The names on a package's page, as they stand there."""
    tree = ast.parse(files()[package].with_suffix(".pyi").read_text())
    return [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_the_page_once(package: str) -> None:
    twice = [name for name, n in Counter(page(package)).items() if n > 1]
    assert not twice
    assert sorted(page(package)) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", ["schedules", "transforms"])
def test_a_namespace_has_what_its_folder_makes_public(package: str) -> None:
    folder = f"jopt.{package}."
    values = {name: getattr(jopt, name) for name in page("jopt")}
    here = {n for n, x in values.items() if _module(x).startswith(folder)}
    assert set(page(f"jopt.{package}")) == here


def _module(value: object) -> str:
    return getattr(value, "__module__", None) or ""


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_function_hides_a_module(package: str) -> None:
    # `jopt.tree.norm` would be the function or the module, by what was imported first.
    module = importlib.import_module(package)
    names = {m.name for m in pkgutil.iter_modules(module.__path__)}
    values = {name: getattr(module, name) for name in page(package)}
    functions = {n for n, x in values.items() if not inspect.ismodule(x)}
    assert not names & functions


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_shows_public_names_only(package: str) -> None:
    shown = dir(importlib.import_module(package))
    assert sorted(shown) == sorted(page(package))


@pytest.mark.parametrize("name", ["Adam", "adamm"])
def test_a_wrong_name_is_an_error_that_suggests_the_right_one(name: str) -> None:
    with pytest.raises(AttributeError, match=r"\badam\b"):
        getattr(jopt, name)


# Folders.


def test_the_library_has_no_modules_beside_its_rooms() -> None:
    names = {path.name for path in LIBRARY.glob("*.py")}
    assert len(names) <= 3, sorted(names)


def test_every_folder_of_tests_is_that_of_a_room_or_a_known_one() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")}
    assert (TESTS / "algorithms").is_dir()
    unknown = {
        str(folder)
        for folder in folders - {Path()}
        if str(folder) not in EXTRAS and not (LIBRARY / folder).is_dir()
    }
    assert not unknown
    assert all((TESTS / folder / "__init__.py").exists() for folder in folders)


def test_every_algorithm_has_its_test_file() -> None:
    modules = {
        f.__module__.removeprefix("jopt.algorithms.")
        for f in map(functools.partial(getattr, jopt), page("jopt"))
        if getattr(f, "__module__", "").startswith("jopt.algorithms.")
    }
    present = {
        p.stem.removeprefix("test_") for p in (TESTS / "algorithms").glob("*.py")
    }
    assert len(modules) > 50
    assert not modules - present
