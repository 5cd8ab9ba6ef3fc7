"""The pages of the site that are made from the library and from files beside docs/.

conf.py calls `write` before a build. Everything goes into docs/generated/, which git
ignores.
"""

from __future__ import annotations

import ast
import inspect
import re
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

import jopt


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = DOCS / "generated"
# Files that pages link to become pages, too.
BESIDE = ["*.md", "LICENSE", "pyproject.toml", "jopt/__init__.pyi"]
BESIDE += ["tests/parity/*.md", "examples/**/*.py", "examples/*.txt"]
# Every public name with the name that its entry in the API has.
PATHS: dict[str, str] = {}


# The API: one page for each subject of jopt's own names, and one for each package.


def packages(package: ModuleType = jopt) -> list[ModuleType]:
    """The packages and modules that are public, the outer ones first."""
    found = [package]
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.ismodule(value):
            found += packages(value)
    return sorted(found, key=lambda module: module.__name__.count("."))


def subjects(package: ModuleType) -> dict[str, list[str]]:
    """The public names of a package under the headings of its stub."""
    stub = Path(package.__file__ or "").with_suffix(".pyi")
    if not stub.exists():
        return {"": list(package.__all__)}
    found: dict[str, list[str]] = {}
    heading = ""
    for line in stub.read_text().splitlines():
        if line.startswith("# "):
            heading = line.removeprefix("# ").rstrip(".").replace("`", "")
        found.setdefault(heading, []).extend(re.findall(r"\b(\w+) as \1\b", line))
    return {heading: names for heading, names in found.items() if names}


def api() -> dict[str, str]:
    """The pages of the API by file name, as reStructuredText."""
    pages: dict[str, str] = {}
    index = []
    known: dict[int, str] = {}  # the path of the entry of a value, by identity
    for package in packages():
        name, parts = package.__name__, subjects(package)
        for heading, names in parts.items():
            page = "-".join(re.findall(r"\w+", heading.lower()))
            if package is not jopt:
                page = name
            if page not in pages:
                pages[page] = title(heading if package is jopt else name, "=")
                if package is not jopt:
                    pages[page] += f".. automodule:: {name}\n\n"
                index.append(f"\n:doc:`/generated/api/{page}`\n   ")
            if package is not jopt and heading:
                pages[page] += title(heading, "-")
            pages[page] += entries(package, names, known)
            for n in names:
                path = f"{name}.{n}"
                PATHS[path] = known.get(id(getattr(package, n)), path)
                index.append(f":obj:`{n} <{PATHS[path]}>`\n   ")
    tree = "".join(f"   generated/api/{page}\n" for page in pages)
    index.append(f"\n\n.. toctree::\n   :hidden:\n\n{tree}")
    pages = {f"api/{page}.rst": text for page, text in pages.items()}
    return pages | {"api.rst": "".join(index)}


def title(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}\n\n"


def entries(package: ModuleType, names: list[str], known: dict[int, str]) -> str:
    """The directives for names of a package; a second name refers to the first one."""
    text, again = f".. py:currentmodule:: {package.__name__}\n\n", []
    for n in names:
        value, path = getattr(package, n), f"{package.__name__}.{n}"
        if inspect.ismodule(value):
            text += f":doc:`{path}`: {(value.__doc__ or '').splitlines()[0]}\n\n"
        elif id(value) in known:
            again.append(f":obj:`{n} <{known[id(value)]}>`")
        elif getattr(value, "__module__", "").startswith("jopt") and callable(value):
            known[id(value)] = path
            members = "   :members:\n" if inspect.isclass(value) else ""
            kind = "class" if members else "function"
            text += f".. auto{kind}:: {path}\n{members}\n"
        else:
            text += f".. py:data:: {n}\n   :value: {alias(value)}\n\n"
    if again:
        text += f"The same functions as elsewhere: {', '.join(again)}.\n\n"
    return text


def alias(value: Any) -> str:
    """The text of a type or constant."""
    value = typing.get_args(value)[0] if hasattr(value, "__metadata__") else value
    return readable(str(value))


def readable(text: str) -> str:
    """Types and functions by their names, without modules and addresses."""
    text = re.sub(r"<(?:\w+) '?([\w.]+)'?(?: object)?(?: at 0x\w+)?>", r"\1", text)
    return re.sub(r"\b(?:[a-z_]+\.)+", "", text)


# Files that pages link to.


def beside() -> dict[str, str]:
    """Pages from files beside docs/, by file name, and a list of the examples."""
    pages, examples, tree = {}, "", ""
    for path in (x for pattern in BESIDE for x in sorted(ROOT.glob(pattern))):
        name = path.relative_to(ROOT)
        if path.suffix == ".md":
            text = relinked(path.read_text(), path.parent)
            pages[f"files/{name}"] = f"---\norphan: true\n---\n\n{text}"
            continue
        language = {".py": "python", ".pyi": "python", ".toml": "toml"}
        pages[f"files/{name}.md"] = (
            f"---\norphan: true\n---\n\n# {name.name}\n\n"
            f"```{{literalinclude}} /../{name}\n"
            f":language: {language.get(path.suffix, 'text')}\n```\n"
        )
        if name.parts[0] == "examples" and path.suffix == ".py":
            text = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
            page = f"generated/files/{name}"
            examples += f"- [{'/'.join(name.parts[1:])}](/{page}.md): {text[0]}\n"
            tree += f"{page}\n"
    tree = f"\n```{{toctree}}\n:hidden:\n\n{tree}```\n"
    return pages | {"examples.md": examples + tree}


def relinked(text: str, folder: Path) -> str:
    """A page whose links to files beside docs/ lead to the pages of those files."""

    def replace(match):
        path = (folder / match[1]).resolve()
        if not path.exists():
            return match[0]
        name = path.relative_to(ROOT)
        if name.parts[0] == "examples" and path.is_dir():
            return f"](/examples.md{match[2]}"
        if path.is_relative_to(DOCS):
            return f"](/{path.relative_to(DOCS)}{match[2]}"
        page = name if path.suffix == ".md" else f"{name}.md"
        return f"](/generated/files/{page}{match[2]}"

    return re.sub(r"\]\(([^)#:\s]+)([)#])", replace, text)


# Pictures of schedules.

CALL = re.compile(r"^- `((\w+)\(.*\))`:((?:[^\n]|\n  )*)\n", re.M)


def gallery(text: str) -> str:
    """The page of schedules with its lists of calls as figures."""
    options = r":alt: the values of \2 over 120 steps\n\n"
    figure = rf"::::{{figure}} generated/schedules/\2.svg\n{options}`\1`:\3\n::::\n"
    figures = CALL.sub(figure, text)
    return re.sub(
        r"((?:^::::\{figure\}(?:.*\n)+?::::\n)+)",
        r":::::{container} gallery\n\1:::::\n",
        figures,
        flags=re.M,
    )


def draw() -> None:
    """Draw the schedule of each call on the page."""
    import matplotlib

    matplotlib.use("Agg")
    folder = GENERATED / "schedules"
    folder.mkdir(parents=True, exist_ok=True)
    names = {name: getattr(jopt, name) for name in jopt.__all__}
    for call, name, _ in CALL.findall((DOCS / "schedule_gallery.md").read_text()):
        schedule = eval(call, dict(names))
        axes = jopt.plot.schedules({name: schedule}, steps=120, width=3.2)
        axes.get_legend().remove()  # the call is below the picture
        axes.figure.savefig(folder / f"{name}.svg")
        matplotlib.pyplot.close(axes.figure)


def write() -> None:
    """Write the pages that differ from what is there, so that a rebuild is quick."""
    draw()
    pages = api() | beside()
    for path in GENERATED.rglob("*.*"):
        name = path.relative_to(GENERATED).as_posix()
        if path.suffix in (".md", ".rst") and name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
