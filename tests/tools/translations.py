"""The README's tables from Keras's, torch's and optax's names and defaults to jopt's.

`python -m tests.tools.translations` asks the front doors what each call is here, probes
which argument becomes which, measures by the golden numbers how far jopt's own defaults
are away, and writes the tables into `PAGES`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from typing import Any

import jax
import numpy as np

import jopt
from jopt.interop import keras, torch
from jopt.interop.keras import pipeline
from jopt.interop.keras.names import OPTIMIZERS as KERAS
from tests.catalogue import WIDTHS, key, rows_of
from tests.parity import keras_configs, schedules, torch_front_door
from tests.parity.numbers import DEVIATIONS, both, trajectory
from tests.parity.problem import PARAMS, flat
from tests.public import public
from tests.tools import translations_of_optax as of_optax
from tests.tools.pages import ROOT, write
from tests.tools.table import power_of_ten
from tests.tools.translations_of_optax import (
    CALLS,
    OPTAX_GAPS,
    alike,
    gaps_table,
    record,
    table,
)


GAPS = DEVIATIONS.with_name("gaps.json")
FRONT = {
    "keras": {n: x for n, x in KERAS.items() if n in keras_configs.OPTIMIZERS},
    "torch": {n: getattr(torch, n) for n in torch_front_door.OPTIMIZERS},
}
PAGES = {
    name: ROOT / "docs" / f"from_{name}.md" for name in ("optax", "keras", "torch")
}
VARIANTS = {
    "keras": {
        "SGD": [{"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}],
        "RMSprop": [{"learning_rate": 0.001, "momentum": 0.9, "centered": True}],
        "Adam": [
            {"learning_rate": 0.001, "amsgrad": True},
            {"learning_rate": 0.001, "weight_decay": 0.1, "global_clipnorm": 1.0},
        ],
    },
    "torch": {
        "SGD": [{"lr": 0.001, "momentum": 0.9, "weight_decay": 0.1}],
        "RMSprop": [{"lr": 0.01, "momentum": 0.9, "centered": True}],
        "Adam": [{"lr": 0.001, "weight_decay": 0.1}, {"lr": 0.001, "amsgrad": True}],
        "NAdam": [
            {"lr": 0.002, "weight_decay": 0.1, "decoupled_weight_decay": True},
        ],
        "Adagrad": [{"lr": 0.01, "lr_decay": 0.1}],
    },
}


def own(factory: Any) -> list[inspect.Parameter]:
    """The arguments of an optimizer that not all of its library have."""
    general = {"params", "maximize", "axes", "name", "exclude_from_weight_decay"}
    if factory in KERAS.values():
        general |= {*pipeline.DEFAULTS} - {p.name for p in factory.build_parameters}
    parameters = inspect.signature(factory).parameters.values()
    return [p for p in parameters if p.name not in general]


def recipes(tx: Any) -> list[Any]:
    """The calls that make an optimizer: one, or those in a chain."""
    if tx.recipe.name == "split_real_and_imaginary":  # about complex numbers only
        return recipes(tx.recipe.arguments["inner"])
    if tx.recipe.name != "chain":
        return [tx.recipe]
    return [x for member in tx.recipe.arguments["members"] for x in recipes(member)]


def spread(tx: Any) -> dict[str, Any]:
    """The arguments of these calls, by call."""
    return {
        f"{recipe.name}/{n}": recipe.arguments.get(n, p.default)
        for recipe in recipes(tx)
        for n, p in recipe.parameters.items()
    }


def probes(value: Any) -> list[Any]:
    """Other values of an argument, of which some are allowed."""
    if isinstance(value, tuple):
        return [
            (*value[:i], x, *value[i + 1 :])
            for i in range(len(value))
            for x in probes(value[i])
        ]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    return [value + 1, value / 2 or 0.125, 1.25 * value]


def linked(factory: Any, given: dict[str, Any]) -> set[str]:
    """The arguments here that an argument there changes."""
    base, found = spread(factory(**given)), set()
    for parameter in own(factory):
        for value in probes(given.get(parameter.name, parameter.default)):
            with contextlib.suppress(TypeError, ValueError):
                changed = spread(factory(**given | {parameter.name: value}))
                if changed.keys() == base.keys():
                    found |= {n for n in base if changed[n] != base[n]}
    return {n for n in found if not isinstance(base[n], bool)}


def shown(value: Any) -> str:
    """A value of an argument, in few letters."""
    if isinstance(value, float):
        return f"{value:.12g}" if value % 1 or value > 1e6 else repr(value)
    return "…" if callable(value) else repr(value).replace("'", '"')


def written(factory: Any, given: dict[str, Any]) -> str:
    """The call here, with the arguments that stand for those there."""
    tx, names, calls = factory(**given), linked(factory, given), []
    for recipe in recipes(tx):
        arguments = [
            f"{n}={shown(recipe.arguments.get(n, p.default))}"
            for n, p in recipe.parameters.items()
            if f"{recipe.name}/{n}" in names or n in recipe.arguments
        ]
        calls.append(f"{recipe.name}({', '.join(arguments)})")
    return calls[0] if len(calls) == 1 else f"chain({', '.join(calls)})"


def theirs(name: str, factory: Any, given: dict[str, Any]) -> str:
    """The call there, with its defaults; a variant has what it is about."""
    arguments = given or {p.name: p.default for p in own(factory)}
    return f"{name}({', '.join(f'{n}={shown(x)}' for n, x in arguments.items())})"


def own_defaults(library: str, name: str) -> tuple[str, float] | None:
    """jopt's call with its own defaults, and how far it ends from the library's.

    In shares of the longest way that a parameter goes, in float64.
    """
    factory = {"keras": keras, "torch": torch}[library]
    called = recipes(getattr(factory, name)())[0].name
    for row in rows_of(library):
        found = re.fullmatch(rf"{name}\((?:lr=|learning_rate=)?([\d.]+)\)", row.oracle)
        if found:
            text = f"{called}({found[1]})"
            _, expected = both(row, "float64")
            with jax.enable_x64(True):
                tx = eval(text, public(jopt))
                actual = trajectory(tx, "float64", row.leaves)
            start = flat({n: PARAMS[n] for n in row.leaves})
            way = np.abs(expected - start).max()
            return text, float(np.abs(actual - expected).max() / way)
    return None


def measured(library: str, name: str) -> str:
    """How near the numbers are in the rows of an optimizer."""
    known = json.loads(DEVIATIONS.read_text())
    rows = [r for r in rows_of(library) if r.oracle.startswith(f"{name}(")]
    if not rows:
        return ""
    largest = (max(known[key(r)][w] for r in rows) for w in WIDTHS)
    found = " / ".join(map(power_of_ten, largest))
    # torch's bfloat16 is patched away in these rows.
    is_patched = any("bfloat16" in r.oracle for r in rows)
    return f"{found}, were torch's iteration not in bfloat16" if is_patched else found


def optimizers(library: str, gaps: dict[str, Any]) -> str:
    """The table of a library's optimizers."""
    title = {"keras": "Keras 3", "torch": "torch 2"}[library]
    lines = [
        f"| {title}, with its defaults | jopt | equal within | jopt's own defaults |",
        "|---|---|---|---|",
    ]
    for name, factory in sorted(FRONT[library].items(), key=lambda x: x[0].lower()):
        cells = [f"`{theirs(name, factory, {})}`", f"`{written(factory, {})}`"]
        cells += [measured(library, name), otherwise(library, name, gaps)]
        lines.append("| " + " | ".join(cells) + " |")
        for given in VARIANTS[library].get(name, ()):
            cells = [
                f"`{theirs(name, factory, given)}`",
                f"`{written(factory, given)}`",
            ]
            lines.append("| " + " | ".join(cells) + " | | |")
    return "\n".join(lines) + "\n"


def otherwise(library: str, name: str, gaps: dict[str, Any]) -> str:
    """What jopt's own defaults are, where they differ, and what they give."""
    (recipe, *rest) = recipes(FRONT[library][name]())
    if name not in gaps[library] or rest:
        return ""
    text, gap = gaps[library][name]
    if gap < 1e-9:
        return f"`{text}` is the same"
    defaults = ", ".join(
        f"{n}={shown(recipe.parameters[n].default)}"
        for n in recipe.arguments
        if n != "learning_rate"
    )
    digits = 0 if gap > 0.1 else 1
    return f"`{text}` is {100 * gap:.{digits}f} % off: `{defaults}`"


def schedules_of(library: str) -> str:
    """The table of a library's schedules: one row of the parity table for each."""
    title = {"keras": "Keras 3", "torch": "torch 2, for `lr=0.1`"}[library]
    lines, seen = [f"| {title} | jopt |", "|---|---|"], set()
    for row in schedules.rows_of(library):
        name = row.oracle.partition("(")[0]
        if name not in seen and row.read == "lr":
            seen.add(name)
            lines.append(f"| `{row.oracle}` | `{row.jopt}` |")
    return "\n".join(lines) + "\n"


def measured_gaps() -> dict[str, Any]:
    """How far jopt's own defaults are from each library's."""
    return {
        library: {n: x for n in front if (x := own_defaults(library, n)) is not None}
        for library, front in FRONT.items()
    }


def parts() -> dict[str, str]:
    """The generated parts of the README, of what was recorded."""
    gaps, theirs = json.loads(GAPS.read_text()), json.loads(CALLS.read_text())
    del theirs["version"]
    return {
        "optax": f"{alike(theirs)}\n{table(theirs)}",
        "optax-numbers": gaps_table(json.loads(OPTAX_GAPS.read_text())),
        "keras": f"{optimizers('keras', gaps)}\n{schedules_of('keras')}",
        "torch": f"{optimizers('torch', gaps)}\n{schedules_of('torch')}",
    }


def main() -> None:
    """Measure, and write the tables into the pages."""
    GAPS.write_text(json.dumps(measured_gaps(), indent=1) + "\n")
    record()
    OPTAX_GAPS.write_text(json.dumps(of_optax.measured_gaps(), indent=1) + "\n")
    for name, part in parts().items():
        page = PAGES[name.partition("-")[0]]
        write(page, name, "tests.tools.translations", part)


if __name__ == "__main__":
    main()
