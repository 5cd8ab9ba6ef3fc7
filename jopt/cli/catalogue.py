"""``jopt list`` and ``jopt show``: which factories there are, and what one is."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import jopt
from jopt.cli.output import UsageError, complain, write_json, write_table, write_title
from jopt.inspect import formulas
from jopt.values import library, registry
from jopt.values.arguments import suggestion, text_of


# Bytes, needs and libraries of each optimizer, from the tests: `tests.tools.table`
# measures and writes them.
MEASURED = Path(__file__).with_name("measured.json")


def list_factories(pattern: str, kind: str | None, as_json: bool) -> int:
    """Write the factories of a kind whose names match; return the exit status."""
    is_pattern = any(sign in pattern for sign in "*?[")
    names = _public(pattern if is_pattern else f"*{pattern}*", kind)
    entries = [
        {"name": x, "kind": formulas.kind(x) or "", "summary": _summary(x)}
        for x in names
    ]
    if as_json:
        write_json(entries)
    elif entries:
        write_table(
            ["name", "kind", "summary"],
            [list(x.values()) for x in entries],
        )
    if not entries:
        of_kind = "" if kind is None else f" of the kind {kind!r}"
        hint = suggestion(pattern, _public("*", kind))
        complain(f"there is nothing{of_kind} like {pattern!r}.{hint}")
    return 0 if entries else 1


def _public(pattern: str, kind: Any) -> list[str]:
    """Names of `jopt.names` without those that only the library itself uses."""
    return [x for x in jopt.names(pattern, kind=kind) if x in library.names]


def show(name: str, as_json: bool) -> None:
    """Write what a factory is."""
    facts = facts_of(name)
    if as_json:
        write_json(facts)
        return
    write_title(f"{name}({_parameters(_factory(name))})")
    print(f"\n{facts['summary']}\n")
    if facts["rule"]:
        print(textwrap.indent(facts["rule"], "    ") + "\n")
    lines = {"kind": facts["kind"], "paper": facts["paper"]}
    if facts["state_bytes"] is not None:
        lines["state"] = f"{facts['state_bytes']:.2g} bytes a float32 parameter"
    if facts["needs"]:
        lines["needs"] = ", ".join(facts["needs"])
    for at, text in lines.items():
        if text:
            print(f"{at:<6} {text}")
    if facts["same_numbers"]:
        print()
        write_table(
            ["same numbers as", "settings", "float32", "float64", "its name there"],
            [
                [x["library"], x["settings"], x["float32"], x["float64"], x["names"]]
                for x in _texts(facts["same_numbers"])
            ],
        )
    print(f"\nhelp(jopt.{name}) explains the arguments.")


def facts_of(name: str) -> dict[str, Any]:
    """What is known about a factory, as data."""
    factory = _factory(name)
    measured = json.loads(MEASURED.read_text()).get(name, {})
    return {
        "name": name,
        "kind": formulas.kind(name),
        "module": factory.__module__,
        "summary": _summary(name),
        "rule": formulas.formula(name),
        "paper": formulas.paper(name),
        "required": [
            x.name
            for x in inspect.signature(factory).parameters.values()
            if x.default is x.empty and x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)
        ],
        "defaults": {n: _plain(x) for n, x in formulas.defaults(name).items()},
        "state_bytes": measured.get("state_bytes"),
        "needs": measured.get("needs", []),
        "same_numbers": measured.get("same_numbers", []),
    }


def _summary(name: str) -> str:
    """The first line of the docstring, without marks of code."""
    return formulas.summary(name).replace("``", "")


def _factory(name: str) -> Any:
    factory = registry.factory(name)
    if factory is None:
        hint = suggestion(name, _public("*", None))
        raise UsageError(f"there is no factory {name!r}.{hint} 'jopt list' lists all")
    return factory


def _parameters(factory: Any) -> str:
    """The parameters of a factory as in a call, without types."""
    signature = inspect.signature(factory)
    bare = [x.replace(annotation=x.empty) for x in signature.parameters.values()]
    return str(inspect.Signature(bare))[1:-1]


def _plain(value: Any) -> Any:
    """A default as JSON, or as the text that makes it."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else text_of(value)


def _texts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        row
        | {x: f"{row[x]:.0e}" for x in ("float32", "float64")}
        | {"names": ", ".join(row["names"])}
        for row in rows
    ]
