"""Compare optimizers: ``python -m tests.benchmarks.arena``.

``--problems w1,w5`` takes these problems and those whose names begin so, ``--optimizers
adamw,muon`` these optimizers, ``--new`` only what has no result yet. Each result is
kept at once, in place of the one before; what is not run again stays, and so does what
is done when the program is interrupted. ``--docs`` writes docs/arena.md, too;
``--problems none --docs`` only that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from tests.benchmarks.arena import page
from tests.benchmarks.arena.contest import contest, field_of
from tests.benchmarks.arena.problems import PROBLEMS
from tests.benchmarks.arena.results import keep, kept


def chosen(names: str, known: Iterable[str]) -> list[str]:
    """Those of the known names that a list with commas selects; all without one."""
    known, wanted = list(known), [x for x in names.split(",") if x]
    if wanted == ["none"]:
        return []
    for x in wanted:
        if not any(_is(name, x) for name in known):
            raise SystemExit(f"there is no {x!r}; there are {', '.join(known)}")
    return [name for name in known if not wanted or any(_is(name, x) for x in wanted)]


def _is(name: str, wanted: str) -> bool:
    return name == wanted or (name.startswith(f"{wanted}_") and wanted[0] == "w")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default="", help="with commas between")
    parser.add_argument("--optimizers", default="", help="with commas between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--new", action="store_true", help="only what has no result")
    parser.add_argument("--docs", action="store_true", help="write the page")
    options = parser.parse_args()
    everyone = dict.fromkeys(x for p in PROBLEMS.values() for x in field_of(p))
    problems = chosen(options.problems, PROBLEMS)
    names = chosen(options.optimizers, everyone)
    try:
        for problem in problems:
            for name in field_of(PROBLEMS[problem]):
                done = options.new and name in kept().get(problem, {})
                if name in names and not done:
                    found = contest(PROBLEMS[problem], name, options.seeds)
                    keep(problem, name, found)
                    print(page.line(problem, name, found), flush=True)
    except KeyboardInterrupt:
        print("interrupted; what was done is kept")
    if options.docs:
        page.write_all()


if __name__ == "__main__":
    main()
