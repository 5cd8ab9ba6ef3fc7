"""What the arena found, as the tables of docs/arena.md."""

from __future__ import annotations

import math
import statistics
import textwrap
from typing import Any

from tests.benchmarks.arena import picture
from tests.benchmarks.arena.contest import FACTOR, RATES, field_of, record_of
from tests.benchmarks.arena.field import FIELD
from tests.benchmarks.arena.problems import PROBLEMS
from tests.benchmarks.arena.results import kept
from tests.benchmarks.arena.solving import SOLVERS
from tests.benchmarks.report import table
from tests.tools.pages import ROOT, write


PAGE = ROOT / "docs" / "arena.md"
ADVICE = ROOT / "docs" / "which_optimizer.md"
IMAGES = ROOT / "docs" / "images"
MODULE = "tests.benchmarks.arena --docs"
# Problems of one table, and its heading.
TOGETHER = {
    "w5": "Classical functions",
    "w6": "Curve fits",
    "w14": "Widths",
}

Results = dict[str, dict[str, Any]]  # of one problem, by optimizer


def number(x: float | None) -> str:
    """Three digits."""
    return "diverged" if x is None else f"{x:.3g}"


def mean(scores: list[float | None]) -> float | None:
    """The mean over seeds; None if a run diverged."""
    known = [x for x in scores if x is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def error(scores: list[float | None]) -> float:
    """The standard error of the mean; infinite for one seed."""
    middle, n = mean(scores), len(scores)
    if middle is None or n < 2:
        return math.inf
    squares = sum((x - middle) ** 2 for x in scores if x is not None)
    return math.sqrt(squares / (n - 1) / n)


def results_of(problem: str) -> Results:
    """What is kept of those who are in the field now."""
    found = kept().get(problem, {})
    return {name: found[name] for name in field_of(PROBLEMS[problem]) if name in found}


def goal_of(problem: str, results: Results) -> float | None:
    """What a run has to reach: the problem's threshold, or AdamW at the end."""
    if PROBLEMS[problem].goal is not None:
        return PROBLEMS[problem].goal
    return results["adamw"]["curve"][-1] if "adamw" in results else None


def steps_to(goal: float | None, result: dict[str, Any]) -> int | None:
    """The steps after which the mean over seeds has reached a goal."""
    if goal is None:
        return None
    at = record_of(goal, result["curve"])
    return None if at is None else result["steps"][at]


def differ(scores: list[float | None], others: list[float | None]) -> bool:
    """Whether the scores of two optimizers differ by more than chance.

    Their means do by more than two standard errors, or all of one are below all of the
    other. The second counts where scores of one spread over orders of magnitude.
    """
    ours, theirs = mean(scores), mean(others)
    if ours is None or theirs is None:
        return ours is not theirs
    low, high = sorted([[x for x in s if x is not None] for s in (scores, others)])
    apart = len(low) > 2 and max(low) < min(high)
    return apart or abs(ours - theirs) > 2 * math.hypot(error(scores), error(others))


def leaders(problem: str, results: Results) -> list[str]:
    """The best, first, and those that do not differ from it."""
    if PROBLEMS[problem].goal is not None:
        steps = {x: steps_to(goal_of(problem, results), results[x]) for x in results}
        known = {x: n for x, n in steps.items() if n is not None}
        return [x for x, n in known.items() if n == min(known.values())]
    means = {x: mean(r["scores"]) for x, r in results.items()}
    known = {x: m for x, m in means.items() if m is not None}
    best = min(known, key=lambda x: known[x])

    def level(name):
        return not differ(results[name]["scores"], results[best]["scores"])

    return [best, *(x for x in known if x != best and level(x))]


def problem_table(problem: str) -> str:
    """All that is known of a problem, the best optimizer first."""
    results = results_of(problem)
    goal, best = goal_of(problem, results), leaders(problem, results)
    by_goal = PROBLEMS[problem].goal is not None

    def measure(name):
        """What decides: steps to the goal of the problem if it has one, else loss."""
        if name not in results:
            return None
        found = results[name]
        return steps_to(goal, found) if by_goal else mean(found["scores"])

    def row(name):
        result, base, ours = results[name], measure("adamw"), measure(name)
        loss, steps = mean(result["scores"]), steps_to(goal, result)
        per_step = result["seconds per step"]
        ratio = f"{ours / base:.2g}" if base and ours is not None else ""
        cells = [number(loss) + (f" ± {error(result['scores']):.1g}" if loss else "")]
        cells += ["" if steps is None else f"{steps}"]
        cells.insert(2 if by_goal else 1, ratio)
        cells += ["" if steps is None else seconds(steps * per_step)]
        cells += [rate(result), at_usual_rate(result)]
        name = f"**{name}**" if name in best else name
        return [name, *cells, seconds(per_step)]

    def place(name):
        loss = mean(results[name]["scores"])
        places = measure(name), math.inf if loss is None else loss
        return tuple(math.inf if x is None else x for x in places)

    header = ["loss ± s.e.", f"steps to {goal:g}" if by_goal else "steps to AdamW's"]
    header.insert(2 if by_goal else 1, "/ AdamW's")
    header = ["optimizer", *header, "time to it", "rate", "at the usual rate"]
    names = sorted(results, key=place)
    return table([*header, "per step"], [row(name) for name in names])


def goals_table(problems: list[str]) -> str:
    """Steps to the goal of each of some problems, and the rate that takes them."""
    found = {problem: results_of(problem) for problem in problems}
    names = list(dict.fromkeys(x for of in found.values() for x in of))

    def cell(problem, name):
        results = found[problem]
        if name not in results:
            return ""
        steps = steps_to(goal_of(problem, results), results[name])
        if steps is None:
            return "no"
        at = rate(results[name])
        text = f"{steps} at {at}" if at else f"{steps}"
        return f"**{text}**" if name in leaders(problem, results) else text

    header = ["optimizer"] + [PROBLEMS[p].title for p in problems]
    return table(header, [[x, *(cell(p, x) for p in problems)] for x in names])


def rates_table(problems: list[str]) -> str:
    """The best rate on each of some problems, and the loss there."""
    found = {problem: results_of(problem) for problem in problems}
    names = list(dict.fromkeys(x for of in found.values() for x in of))

    def cell(problem, name):
        result = found[problem].get(name)
        if result is None:
            return ""
        return f"{result['rate']:.2g}: {number(mean(result['scores']))}"

    header = ["rate: loss"] + [PROBLEMS[p].title for p in problems]
    return table(header, [[x, *(cell(p, x) for p in problems)] for x in names])


def seconds(x: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if x >= size:
            return f"{x / size:.3g} {unit}"
    return f"{x / 1e-6:.3g} us"


def rate(result: dict[str, Any]) -> str:
    """The chosen rate; nothing for a solver, which has none."""
    return "" if result["rate"] is None else f"{result['rate']:.2g}"


def at_usual_rate(result: dict[str, Any]) -> str:
    """The loss at the usual rate, and that; nothing for a solver."""
    if result["usual rate"] is None:
        return ""
    return f"{number(mean(result['usual scores']))} at {result['usual rate']:g}"


def line(problem: str, name: str, found: dict[str, Any]) -> str:
    """A result, for the terminal."""
    text = f"{problem:>16} {name:<20} {number(mean(found['scores'])):>9}"
    if found["rate"] is not None:
        text += f" at {rate(found)}" + ", an edge of the grid!" * found["at edge"]
        text += f", {at_usual_rate(found)}"
    return f"{text} ({found['seconds']} s)"


# The parts of the page.


def sections() -> dict[str, list[str]]:
    """The problems that have results, by section."""
    found: dict[str, list[str]] = {}
    for problem in sorted(PROBLEMS, key=_order):
        if results_of(problem):
            head = problem.partition("_")[0]
            one_table = head == "w14" or PROBLEMS[problem].goal is not None
            together = head in TOGETHER and one_table
            found.setdefault(head if together else problem, []).append(problem)
    return found


def _order(problem: str) -> tuple[int, int]:
    return int(problem.partition("_")[0][1:]), list(PROBLEMS).index(problem)


def problems_part() -> str:
    """A section for each problem."""
    blocks = []
    for name, problems in sections().items():
        if name not in TOGETHER:
            problem = PROBLEMS[name]
            title = f"### {name.replace('_', ', ').capitalize()}: {problem.title}"
            blocks += [title, textwrap.fill(_about(name), 88), problem_table(name)]
            continue
        blocks.append(f"### {name.upper()}: {TOGETHER[name]}")
        about = {PROBLEMS[p].about for p in problems}
        items = map(_item, problems)
        blocks.append("\n".join(items) if len(about) > 1 else about.pop())
        blocks.append(rates_table(problems) if name == "w14" else goals_table(problems))
    return "\n\n".join(blocks) + "\n"


def _about(problem: str) -> str:
    goal = PROBLEMS[problem].goal
    about = PROBLEMS[problem].about
    return about if goal is None else f"{about} The goal is {goal:g}."


def _item(problem: str) -> str:
    text = f"{PROBLEMS[problem].title}: {_about(problem)}"
    return textwrap.fill(text, 88, initial_indent="- ", subsequent_indent="  ")


def overview_part() -> str:
    """Who is best where; the pictures; what was used."""
    found = {problem: results_of(problem) for problem in PROBLEMS}
    found = {p: r for p, r in found.items() if "adamw" in r}
    rows, plain = [], []
    for problem in sorted(found, key=_order):
        best = leaders(problem, found[problem])
        rows.append(
            [
                f"{problem}: {PROBLEMS[problem].title}",
                best[0] if best else "none reaches the goal",
                ", ".join(best[1:]),
            ]
        )
        if usual := [x for x in best if x in ("adamw", "sgd")]:
            plain.append(f"{PROBLEMS[problem].title} ({', '.join(usual)})")
    blocks = [table(["problem", "best", "level with it"], rows)]
    if plain:
        blocks.append(
            textwrap.fill(
                "None is better than AdamW or SGD with momentum, by more than chance, "
                f"on: {'; '.join(plain)}.",
                88,
            )
        )
    blocks.append("![Losses of AdamW's, and steps to a goal](images/arena.png)")
    blocks.append("![Learning curves](images/arena_curves.png)")
    used = {
        f"jopt {x['jopt']}, jax {x['jax']}, {x['device']}"
        for results in found.values()
        for x in (result["with"] for result in results.values())
    }
    seeds = {len(x["scores"]) for results in found.values() for x in results.values()}
    counts = " or ".join(map(str, sorted(seeds)))
    grid = f"{RATES} rates, a factor of {FACTOR:.3g} apart"
    blocks.append(f"Each grid has {grid}; {counts} seeds; {'; '.join(sorted(used))}.")
    return "\n\n".join(blocks) + "\n"


def against_adamw(problem: str, name: str, results: Results) -> int:
    """1 if an optimizer is better than AdamW, -1 if it is worse, 0 if level with it."""
    if PROBLEMS[problem].goal is not None:
        steps = [
            steps_to(PROBLEMS[problem].goal, results[x]) or math.inf
            for x in (name, "adamw")
        ]
        return (steps[0] < steps[1]) - (steps[0] > steps[1])
    scores = [results[x]["scores"] for x in (name, "adamw")]
    if not differ(*scores):
        return 0
    ours, theirs = (math.inf if x is None else x for x in map(mean, scores))
    return 1 if ours < theirs else -1


def summary_part() -> str:
    """Each optimizer of the field beside AdamW, over all problems."""
    found = {p: results_of(p) for p in PROBLEMS if not p.startswith("w14_")}
    found = {p: r for p, r in found.items() if "adamw" in r}
    everyone = {**FIELD, **SOLVERS}

    def row(name):
        on = {p: r for p, r in found.items() if name in r}
        signs = [against_adamw(p, name, r) for p, r in on.items()]
        losses = [
            (mean(r[name]["scores"]) or math.inf) / base
            for p, r in on.items()
            if PROBLEMS[p].goal is None and (base := mean(r["adamw"]["scores"]))
        ]
        per_step = [
            r[name]["seconds per step"] / r["adamw"]["seconds per step"]
            for p, r in on.items()
            if PROBLEMS[p].goal is None
        ]
        counts = [str(signs.count(sign)) for sign in (1, 0, -1)]
        middles = [
            f"{statistics.median(x):.2g}" if x else "" for x in (losses, per_step)
        ]
        return [f"`{everyone[name]}`", *counts, *middles]

    compared = [r for p, r in found.items() if PROBLEMS[p].goal is None]
    names = [x for x in everyone if x != "adamw" and any(x in r for r in compared)]
    header = ["optimizer", "better", "level", "worse", "loss / AdamW's"]
    header += ["time of a step / AdamW's"]
    rows = table(header, [row(name) for name in names])
    return f"{rows}\n\n{len(found)} problems; the ratios are medians.\n"


# What is written where.
PARTS = {
    "overview": (PAGE, overview_part),
    "problems": (PAGE, problems_part),
    "arena": (ADVICE, summary_part),
}


def write_all() -> None:
    """Write the page's parts and its pictures."""
    found = {problem: results_of(problem) for problem in PROBLEMS}
    found = {p: found[p] for p in sorted(found, key=_order) if found[p]}
    picture.overview(cells(found), IMAGES / "arena.png")
    picture.curves(
        {PROBLEMS[p].title: found[p] for p in ("w1", "w3", "w4", "w2") if p in found},
        IMAGES / "arena_curves.png",
    )
    for name, (target, part) in PARTS.items():
        write(target, name, MODULE, part())


def cells(found: dict[str, Results]) -> dict[bool, dict[str, dict[str, float | None]]]:
    """Ratios to AdamW: of losses, and, for problems with a goal, of steps to it.

    By whether the problem has a goal, then by problem and by optimizer of the field.
    None stands for a goal that is not reached and a run that diverged.
    """
    ratios: dict[bool, dict[str, dict[str, float | None]]] = {False: {}, True: {}}
    for problem, results in found.items():
        if problem.startswith("w14_"):  # of the same problem at other widths
            continue
        has_goal = PROBLEMS[problem].goal is not None

        def value(name, results=results, problem=problem, has_goal=has_goal):
            if has_goal:
                return steps_to(goal_of(problem, results), results[name])
            return mean(results[name]["scores"])

        base = value("adamw") if "adamw" in results else None
        if base:
            ratios[has_goal][problem] = {
                name: None if (x := value(name)) is None else x / base
                for name in results
                if name in FIELD
            }
    return ratios
