"""The table and the formulas of optimizers, from the registry and the parity tests.

`python -m tests.tools.table` measures every parity row against the golden numbers,
keeps the deviations in parity/golden/deviations.json, and writes table and formulas
into `PAGE`, and what it measured as data into `MEASURED`, for the command line.
Formulas and papers come from the docstrings; what an optimizer stores and needs comes
from the optimizer itself.
"""

from __future__ import annotations

import collections
import json
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

import jopt
from jopt.cli.catalogue import MEASURED
from jopt.inspect import formulas
from jopt.values import registry
from tests.catalogue import ROWS, WIDTHS, key
from tests.parity.numbers import DEVIATIONS, both, deviation
from tests.public import public
from tests.tools.pages import ROOT, write


PAGE = ROOT / "docs" / "optimizers.md"
TITLES = {"keras": "Keras"}
# Arguments of those that have no learning rate first, or need more than one.
CALLS = {
    "dpsgd": "dpsgd(0.1, 1.0, 1.0, key=0)",
    "hyperball": "hyperball(scale_by_muon(), 0.01)",
    "lbfgs": "lbfgs()",
    "mechanize": "mechanize(sgd(1.0))",
    "noisy_sgd": "noisy_sgd(0.1, key=0)",
    "polyak_sgd": "polyak_sgd()",
    "schedule_free": "schedule_free(sgd(0.1), 0.1)",
}
SHAPE = (1024, 1024)


def optimizers() -> list[str]:
    """The registered factories of optimizers."""
    return [
        name
        for name in jopt.names()
        if registry.factories()[name].__module__.startswith("jopt.algorithms.")
        and not name.startswith("scale_by_")
        and (
            "learning_rate" in registry.factories()[name].__signature__.parameters
            or name in CALLS
        )
    ]


def made(name: str) -> Any:
    """An optimizer with its defaults."""
    call = CALLS.get(name, f"{name}(learning_rate=0.1)")
    return eval(call, public(jopt))


def paper(name: str) -> str:
    """Authors and year, as the docstring has them."""
    found = formulas.paper(name)
    if found is None:
        raise ValueError(
            f'the docstring of {name} has no source: Authors, "Title", year'
        )
    return found


def stored(name: str) -> float:
    """Bytes of state per float32 parameter of a square matrix."""
    params = {"kernel": jax.ShapeDtypeStruct(SHAPE, jnp.float32)}
    state = jax.eval_shape(made(name).init, params)
    nbytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return float(f"{nbytes / math.prod(SHAPE):.2g}") if nbytes > 999 else 0.0


def needed(name: str) -> list[str]:
    """What an update takes beyond updates and state, as its errors say."""
    params = {"kernel": jnp.ones((8, 8))}
    tx, given = made(name), {}
    state = tx.init(params)

    def loss(params, *_):
        return jopt.tree.norm(params)

    known = {"params": params, "value": jnp.ones(()), "grad": params}
    known |= {"obj_fn": loss, "value_fn": loss}
    for _ in range(4):
        try:
            jax.eval_shape(lambda: tx.update(params, state, **given))
        except TypeError as error:
            missing = re.search(
                r"needs (?:the (parameters)|the argument '(\w+)')", str(error)
            )
            assert missing, error
            word = "params" if missing[1] else missing[2]
            given[word] = known[word]
        else:
            break
    words = {"obj_fn": "the loss, for second gradients"}
    words |= {"value_fn": "the loss as a function", "grad": "the gradient"}
    return [words.get(word, word) for word in given]


def compared() -> dict[str, list[Any]]:
    """The parity rows of each optimizer."""
    known = set(optimizers())
    found = collections.defaultdict(list)
    for row in ROWS:
        for name in re.findall(r"(\w+)\(", row.jopt):
            if name in known:
                found[name].append(row)
                break
    return found


def power_of_ten(x: float) -> str:
    """A bound in whole powers of ten; 0 stays 0."""
    return "0" if x == 0 else f"1e{math.ceil(math.log10(x))}"


def table(facts: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "| optimizer | paper | state | needs | same numbers as | within |",
        "|---|---|---|---|---|---|",
    ]
    for name, fact in facts.items():
        of = fact["same_numbers"]
        counts = {TITLES.get(x["library"], x["library"]): x["settings"] for x in of}
        largest = [
            power_of_ten(max(x[width] for x in of)) if of else ""
            for width in ("float32", "float64")
        ]
        cells = [
            f"[`{name}`](#{name})",
            paper(name),
            f"{fact['state_bytes']:.2g}",
            ", ".join(fact["needs"]) or "-",
            ", ".join(f"{library} {n}" for library, n in sorted(counts.items())),
            " / ".join(largest) if of else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def measured_facts(deviations: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What is measured of each optimizer, for the table and for ``jopt show``."""
    facts: dict[str, Any] = {}
    rows = compared()
    for name in optimizers():
        libraries = []
        for library in sorted({row.library for row in rows[name]}):
            of = [row for row in rows[name] if row.library == library]
            calls = [re.search(r"[A-Za-z]\w*", row.oracle) for row in of]
            libraries.append(
                {
                    "library": library,
                    "settings": len(of),
                    "names": sorted({call[0] for call in calls if call}),
                    **{w: max(deviations[key(r)][w] for r in of) for w in WIDTHS},
                }
            )
        facts[name] = {
            "state_bytes": stored(name),
            "needs": needed(name),
            "same_numbers": libraries,
        }
    return facts


def rules() -> str:
    """The formula of each optimizer as Markdown."""
    sections = []
    for name in optimizers():
        # A summary that is a formula is in the block, too.
        text = formulas.summary(name).replace("``", "`")
        text = text.partition(":")[0] + "." if "<-" in text else text
        sections.append(
            f"### {name}\n\n{text} {paper(name)}; `jopt.{name}`\n\n"
            f"```text\n{formulas.formula(name)}\n```\n"
        )
    return "\n".join(sections)


def main() -> None:
    """Measure, and write the numbers and the table."""
    measured = {
        key(row): {
            width: float(f"{deviation(*both(row, width)):.1e}") for width in WIDTHS
        }
        for row in ROWS
    }
    DEVIATIONS.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    facts = measured_facts(measured)
    write(PAGE, "optimizers", "tests.tools.table", table(facts))
    write(PAGE, "formulas", "tests.tools.table", rules())
    MEASURED.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
