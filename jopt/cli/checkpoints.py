"""``jopt checkpoint``: what is in a checkpoint, is it whole, how do two differ.

JAX is imported only where arrays are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jopt.checkpoint import index as indices
from jopt.cli.output import UsageError, complain, write_json, write_table, write_title
from jopt.cli.shapes import safetensors_header


def ls(path: Path, as_json: bool) -> None:
    """Write what is in a checkpoint, or which checkpoints are in a folder."""
    if _is_one(path):
        contents = _contents(path)
        if as_json:
            write_json(contents)
        else:
            _write_contents(contents)
        return
    found = []
    for child in _children(path):
        try:
            found.append(_summary(_contents(child)))
        except ValueError as error:  # one that is damaged does not hide the others
            found.append({"path": str(child), "error": str(error)})
            complain(error)
    if as_json:
        write_json(found)
        return
    recipes = {x["recipe"] for x in found if x.get("recipe")}
    columns = ["path", "step", "value", "arrays", "bytes", "recipe"]
    if len(recipes) == 1:  # the same in each line would only fill the screen
        print(f"recipe: {recipes.pop()}\n")
        columns.pop()
    write_table(
        columns,
        [
            ["" if (y := x.get(column)) is None else y for column in columns]
            for x in found
        ],
    )


def verify(paths: Sequence[Path], as_json: bool) -> int:
    """Write which checkpoints are whole; return the exit status."""
    results = []
    for path in (child for x in paths for child in _ones(x)):
        error = None
        try:
            entries = _verified(path)
        except (ValueError, OSError) as problem:
            error, entries = str(problem), {}
        size = sum(map(_size, entries.values()))
        results.append(
            {
                "path": str(path),
                "whole": error is None,
                "arrays": len(entries),
                "bytes": size,
                "error": error,
            }
        )
        if not as_json and error is None:
            print(f"{path}: whole, {len(entries)} arrays, {size:,} bytes")
        elif error is not None:
            complain(error)
    if as_json:
        write_json(results)
    return 0 if all(x["whole"] for x in results) else 1


def diff(a: Path, b: Path, as_json: bool) -> int:
    """Write what differs between two checkpoints; return the exit status."""
    for path in (a, b):
        if not _is_one(path):
            children = ", ".join(map(str, _children(path)))
            raise UsageError(f"{path} has several checkpoints; name one: {children}")
    one, other = indices.read(a), indices.read(b)
    facts = [
        {"what": what, "a": x, "b": y}
        for what in ("step", "value", "metadata", "recipe")
        if (x := _fact(one, what)) != (y := _fact(other, what))
    ]
    arrays = list(_different(a, b, one["entries"], other["entries"]))
    if as_json:
        write_json({"facts": facts, "arrays": arrays})
        return 1 if facts or arrays else 0
    for fact in facts:
        print(f"{fact['what']}: {_text(fact['a'])} -> {_text(fact['b'])}")
    if facts and arrays:
        print()
    if arrays:
        write_table(
            ["array", "in A", "in B", "largest difference"],
            [
                [x["name"], x["a"] or "-", x["b"] or "-", _number(x["difference"])]
                for x in arrays
            ],
        )
    if not facts and not arrays:
        print("no difference")
    return 1 if facts or arrays else 0


# Paths.


def _is_one(path: Path) -> bool:
    """Whether a path is one checkpoint, and not a folder of some."""
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}")
    return not path.is_dir() or indices.is_checkpoint(path)


def _children(path: Path) -> list[Path]:
    """The checkpoints in a folder, by step and name."""
    found = [
        child
        for child in path.iterdir()
        if not child.name.startswith(".")
        and (
            indices.is_checkpoint(child)
            if child.is_dir()
            else child.suffix in indices.FORMATS
        )
    ]
    if not found:
        raise UsageError(f"{path} is not a checkpoint, and has none")
    by_step = {x: int(x.name) if x.name.isdecimal() else math.inf for x in found}
    return sorted(found, key=lambda x: (by_step[x], x.name))


def _ones(path: Path) -> list[Path]:
    return [path] if _is_one(path) else _children(path)


# What is in a checkpoint.


def _contents(path: Path) -> dict[str, Any]:
    index = _index(path)
    arrays = [
        {
            "name": name,
            "shape": entry["shape"],
            "dtype": entry["dtype"],
            "bytes": _size(entry),
        }
        for name, entry in index["entries"].items()
    ]
    parts = dict.fromkeys(x["name"].partition("/")[0] for x in arrays)
    totals = {
        part: sum(x["bytes"] for x in arrays if x["name"].partition("/")[0] == part)
        for part in parts
    }
    if not totals.keys() <= {"params", "opt_state", "rng"}:  # of another library
        totals = {"arrays": sum(totals.values())}
    return {
        "path": str(path),
        **{x: _fact(index, x) for x in ("step", "value", "metadata", "jopt", "recipe")},
        "bytes": totals,
        "arrays": arrays,
    }


def _index(path: Path) -> dict[str, Any]:
    """The index of a checkpoint, or what stands for it in another library's file."""
    if path.suffix == ".safetensors" and path.is_file():
        entries, metadata = safetensors_header(path)
        if indices.INDEX not in metadata:
            nothing = dict.fromkeys(("step", "value", "schema"))
            return {**nothing, "metadata": metadata or None, "entries": entries}
    return indices.read(path)


def _fact(index: Any, what: str) -> Any:
    if what in ("jopt", "recipe"):
        return (index["schema"] or {}).get(what)
    return index[what]


def _write_contents(contents: dict[str, Any]) -> None:
    write_title(contents["path"])
    for what in ("step", "value", "recipe", "metadata"):
        if contents[what] is not None:
            print(f"{what}: {_text(contents[what])}")
    print()
    write_table(
        ["array", "shape", "dtype", "bytes"],
        [
            [x["name"], " x ".join(map(str, x["shape"])), x["dtype"], x["bytes"]]
            for x in contents["arrays"]
        ],
    )
    sizes = ", ".join(f"{part} {n:,}" for part, n in contents["bytes"].items())
    print(f"\n{len(contents['arrays'])} arrays; bytes: {sizes or 0}")


def _summary(contents: dict[str, Any]) -> dict[str, Any]:
    """One checkpoint of several."""
    recipe = contents["recipe"]
    return {
        **{x: contents[x] for x in ("path", "step", "value")},
        "arrays": len(contents["arrays"]),
        "bytes": sum(contents["bytes"].values()),
        "recipe": "" if recipe is None else _text(recipe),
    }


def _size(entry: Any) -> int:
    return math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize


def _text(value: Any) -> str:
    """A recipe as the call that makes it; other data as JSON."""
    match value:
        case {"name": name, "config": {"members": {"$tuple": [*parts]}}} | {
            "name": name,
            "config": {"pairs": {"$tuple": [*parts]}},
        }:
            return f"{name}({', '.join(map(_text, parts))})"
        case {"name": name, "config": {"named": {"$dict": [*pairs]}}}:
            return _call(name, pairs)
        case {"name": str() as name, "config": {**config}}:
            return _call(name, config.items())
        case {"$tunable": x}:
            return f"tunable({_text(x)})"
        case {"$tuple": [*parts]}:
            return f"({', '.join(map(_text, parts))})"
        case {"$dict": [*pairs]}:
            return f"{{{', '.join(f'{_text(n)}: {_text(x)}' for n, x in pairs)}}}"
        case {"$function": name}:
            return name
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _call(name: str, arguments: Iterable[tuple[str, Any]]) -> str:
    return f"{name}({', '.join(f'{n}={_text(x)}' for n, x in arguments)})"


# What is read.


def _verified(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint; raises unless all bytes are as written."""
    from jopt.checkpoint import saving

    return saving.verified(path)


def _different(a: Path, b: Path, one: Any, other: Any) -> Iterator[dict[str, Any]]:
    """The arrays that only one has, or that have other types or values."""
    types = [{n: _type(x) for n, x in entries.items()} for entries in (one, other)]
    names = list(one | other)
    changed = [
        name
        for name in names
        if name in one
        and name in other
        and types[0][name] == types[1][name]
        and one[name]["checksum"] != other[name]["checksum"]
    ]
    distances = _distances(a, b, changed) if changed else {}
    for name in names:
        x, y = types[0].get(name), types[1].get(name)
        if x != y or name in distances:
            yield {"name": name, "a": x, "b": y, "difference": distances.get(name)}


def _type(entry: Any) -> str:
    return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"


def _distances(a: Path, b: Path, names: list[str]) -> dict[str, float | None]:
    """The largest difference of each array; None where that is not a number."""
    from jopt.checkpoint import saving

    found = {}
    with saving.opened(a) as (_, read_a), saving.opened(b) as (_, read_b):
        ones = read_a(dict.fromkeys(names))
        others = dict(read_b(dict.fromkeys(names)))
        for name, x in ones:
            x, y = np.asarray(x), np.asarray(others.pop(name))
            wide = np.complex128 if np.iscomplexobj(x) else np.float64
            with np.errstate(all="ignore"):
                distance = np.max(np.abs(x.astype(wide) - y.astype(wide)), initial=0.0)
            found[name] = float(distance) if np.isfinite(distance) else None
    return found


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}"
