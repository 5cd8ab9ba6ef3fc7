"""What the benchmarks say: Markdown for the page, and the picture of it.

`python -m tests.benchmarks.report` writes both again from what was measured last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jopt.plot.style import COLOURS, canvas, library
from tests.benchmarks.recipes import RECIPES, TREES
from tests.tools.pages import ROOT, write


PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.png"
PARTS = ("steps", "traffic", "sparse")  # of the page, each with its module


def path(name: str) -> Path:
    """Where what was measured for a part of the page is kept."""
    return Path(__file__).with_name(f"{name}.json")


def kept(name: str) -> dict[str, Any]:
    return json.loads(path(name).read_text())


def part(name: str) -> str:
    """The generated part of the page, from what is kept."""
    return {"steps": steps, "traffic": traffic, "sparse": sparse}[name](kept(name))


def keep(name: str, found: dict[str, Any]) -> None:
    """Keep what was measured, and write its part of the page."""
    path(name).write_text(json.dumps(found, indent=1) + "\n")
    if name == "steps":
        picture(found, PICTURE)
    write(PAGE, name, f"tests.benchmarks.{name} --docs", part(name))


def with_kept(found: dict[str, Any]) -> dict[str, Any]:
    """What was measured, with what is kept of other recipes on the same machine."""
    old = kept("steps")
    same = ("cpu", "cores", "device", "rounds")
    # A peer that was not installed then has no rows that could be of another version.
    versions = old["versions"] | found["versions"]
    if any(old[name] != found[name] for name in same) or any(
        versions[name] != version for name, version in old["versions"].items()
    ):
        return found

    def of(row):
        return row["tree"], row["recipe"], row["peer"]

    rows = {of(row): row for row in (*old["rows"], *found["rows"])}
    return {**found, "versions": versions, "rows": list(rows.values())}


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table of Markdown, in columns that a terminal shows, too."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (n - 1) + ":" for n in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join(
            [line[0].ljust(widths[0])]
            + [x.rjust(n) for x, n in zip(line[1:], widths[1:], strict=True)]
        )
        + " |"
        for line in [header, rule, *lines[1:]]
    )


def number(x: float | None) -> str:
    """Three digits; nothing for what was not measured."""
    if x is None:
        return ""
    return f"{x:.0f}" if x >= 100 or x < 0.005 else f"{x:.3g}"


# Bytes.


def traffic(found: dict[str, Any]) -> str:
    """Bytes that move per parameter, by compiler."""
    header = ["recipe", "floor"]
    header += [f"{library}, {c}" for c in found for library in ("jopt", "optax")]

    def cell(name, compiler, library):
        facts = found[compiler].get(name, {}).get(library)
        if facts is None:
            return ""
        text = number(facts["moved"])
        text += f" or {number(facts['moved'] + facts['perhaps'])}" * (
            facts["perhaps"] > 0.5
        )
        return text + f" (+{facts['temporary']:.2g})" * (facts["temporary"] > 0.05)

    rows = [
        [f"`{name}`", number(recipe.last or recipe.floor)]
        + [cell(name, c, library) for c in found for library in ("jopt", "optax")]
        for name, recipe in RECIPES.items()
        if any(name in of for of in found.values())
    ]
    return table(header, rows) + "\n"


# Times.


def floor(row: dict[str, Any]) -> float:
    """The seconds that the floor takes at the bandwidth of that run."""
    nbytes = RECIPES[row["recipe"]].floor * TREES[row["tree"]].count()
    return nbytes / row["bandwidth"]


def peers(found: dict[str, Any], measure: str) -> list[str]:
    """Those with this measure."""
    rows = found["rows"]
    return list(dict.fromkeys(row["peer"] for row in rows if measure in row))


def numbers(found: dict[str, Any], tree: str, recipe: str) -> dict[str, Any]:
    """The row of each peer."""
    return {
        row["peer"]: row
        for row in found["rows"]
        if (row["tree"], row["recipe"]) == (tree, recipe)
    }


def measured(found: dict[str, Any]) -> dict[str, list[str]]:
    """The recipes of each tree."""
    pairs = dict.fromkeys((row["tree"], row["recipe"]) for row in found["rows"])
    trees: dict[str, list[str]] = {}
    for tree, recipe in pairs:
        trees.setdefault(tree, []).append(recipe)
    return trees


def steps(found: dict[str, Any]) -> str:
    """All tables of what a run measured."""
    versions = ", ".join(f"{name} {x}" for name, x in found["versions"].items())
    gigabytes = ", ".join(
        f"{name} {x / 1e9:.1f} GB/s" for name, x in found["bandwidth"].items()
    )
    lines = [
        "- {date}, {cpu}, {cores} cores, {device}.".format(**found),
        f"- {versions}.",
        f"- Bandwidth: {gigabytes}.",
        f"- Medians of {found['rounds']} rounds, in which all take turns.",
    ]
    sections = ["\n".join(lines)]
    for tree, recipes in measured(found).items():
        n = TREES[tree].count()
        size = f"{n / 1e6:.0f} million" if n > 1e7 else f"{n / 1e6:.2g} million"
        head = f"### {tree}\n\n{TREES[tree].title}: {size} parameters."
        sections += [head, _steps(found, tree, recipes)]
        if TREES[tree].compiles > 1:
            sections.append(_phases(found, tree, recipes))
        else:
            sections.append(_memory(found, tree, recipes))
    link = f"![The steps of the first table]({PICTURE.relative_to(PAGE.parent)})"
    return "\n\n".join([*sections, link]) + "\n"


def _steps(found: dict[str, Any], tree: str, recipes: list[str]) -> str:
    """Milliseconds of a step."""
    known = [
        peer
        for peer in peers(found, "step")
        if any(peer in numbers(found, tree, recipe) for recipe in recipes)
    ]
    ours = [x for x in known if x.startswith("jopt")]
    compared = ours if "optax" in known else []
    rows = []
    for recipe in recipes:
        of = numbers(found, tree, recipe)
        ms = {peer: 1e3 * row["step"] for peer, row in of.items()}
        shares = [floor(of[x]) / of[x]["step"] for x in ours if x in of]
        cells = [f"`{recipe}`", *(number(ms.get(x)) for x in known)]
        cells += [
            f"{ms[x] / ms['optax']:.2f}" if {x, "optax"} <= set(ms) else ""
            for x in compared
        ]
        cells.append(f"{100 * max(shares):.0f} %" if any(shares) else "")
        rows.append(cells)
    ratios = [f"{x} / optax" for x in compared]
    header = ["step [ms]", *known, *ratios, "of the bandwidth"]
    if not any(cells[-1] for cells in rows):
        header, rows = header[:-1], [cells[:-1] for cells in rows]
    return table(header, rows)


def _memory(found: dict[str, Any], tree: str, recipes: list[str]) -> str:
    """Megabytes of what a step keeps beyond its arguments and results, and of all."""
    of = {recipe: numbers(found, tree, recipe) for recipe in recipes}
    known = [x for x in peers(found, "peak") if any(x in rows for rows in of.values())]

    def cell(row):
        if not row:
            return ""
        return f"{number(row['temporary'] / 1e6)} of {number(row['peak'] / 1e6)}"

    rows = [
        [f"`{recipe}`", *(cell(of[recipe].get(peer)) for peer in known)]
        for recipe in recipes
    ]
    return table(["temporary [MB]", *known], rows)


PHASES = ("trace", "lower", "compile", "dispatch", "unjitted")


def _phases(found: dict[str, Any], tree: str, recipes: list[str]) -> str:
    """Milliseconds of what comes before a step."""
    rows = []
    for recipe in recipes:
        of = numbers(found, tree, recipe)
        for phase in PHASES:
            values = {p: 1e3 * row[phase] for p, row in of.items() if phase in row}
            if values:
                rows.append((recipe, phase, values))
    known = list(dict.fromkeys(p for _, _, values in rows for p in values))
    cells = []
    for recipe, phase, values in rows:
        ratio = (
            f"{values['jopt'] / values['optax']:.2f}"
            if {"jopt", "optax"} <= set(values)
            else ""
        )
        shown = (number(values.get(peer)) for peer in known)
        cells.append([f"`{recipe}`: {phase}", *shown, ratio])
    header = ["milliseconds", *known, "jopt / optax"]
    if "optax" not in known:
        header, cells = header[:-1], [line[:-1] for line in cells]
    return table(header, cells)


def sparse(found: dict[str, Any]) -> str:
    """Milliseconds of a step with rows, and with the whole gradient."""
    rows = [
        [f"`{name}`", *map(number, of), number(of[1] / of[0])]
        for name, of in found.items()
    ]
    return table(["step [ms]", "sparse", "dense", "dense / sparse"], rows) + "\n"


def picture(found: dict[str, Any], target: Path) -> None:
    """Bars of each recipe on the first tree, and a line for what its floor takes."""
    tree, recipes = next(iter(measured(found).items()))
    known = [x for x in peers(found, "step") if x.startswith("jopt") or x == "optax"]
    with canvas(None, 5, [0.6 + 0.3 * len(recipes)]) as (axes,):
        height = 0.8 / len(known)
        colours = iter(COLOURS)
        for i, peer in enumerate(known):
            rows = [numbers(found, tree, recipe).get(peer) for recipe in recipes]
            axes.barh(
                [y + (i + 0.5) * height - 0.4 for y in range(len(recipes))],
                [1e3 * row["step"] if row else 0 for row in rows],
                0.9 * height,
                label=peer,
                color="#BBBBBB" if peer == "optax" else next(colours),
            )
        of = [numbers(found, tree, recipe) for recipe in recipes]
        least = [floor(next(iter(rows.values()))) for rows in of]
        at = [(y, 1e3 * x) for y, x in enumerate(least) if x]
        axes.vlines(
            [x for _, x in at],
            [y - 0.45 for y, _ in at],
            [y + 0.45 for y, _ in at],
            color="black",
            label="least time for the bytes",
        )
        axes.set_yticks(range(len(recipes)), recipes)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlabel(f"milliseconds of a step of {TREES[tree].title}")
        axes.figure.legend(loc="outside upper left", ncols=3, frameon=False)
        target.parent.mkdir(exist_ok=True)
        axes.figure.savefig(target, dpi=200, bbox_inches="tight")
    library().close(axes.figure)


def main() -> None:
    """Write the parts of the page again."""
    for name in PARTS:
        keep(name, kept(name))


if __name__ == "__main__":
    main()
