"""What a race found: records, a table, a picture."""

from __future__ import annotations

import dataclasses
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RaceEntry:
    """One optimizer in a `RaceResult`. In the arrays, NaN is a run that diverged.

    Args:
      name: Its name.
      recipe: The call that makes it with the chosen rate, if it is known.
      rate: The chosen learning rate, the peak of the schedule.
      rates: All learning rates that were tried.
      validation: The metric on validation after the last step: rates x seeds.
      grown: By how many rates the grid grew.
      at_edge: Whether the chosen rate is at an edge of the grid in spite of that.
      final_rates: The chosen rate in the middle of its neighbours.
      test: The metric on test, with other seeds: final_rates x seeds.
      steps: The steps after which something was recorded.
      loss: The mean training loss since the record before, in the final: seeds x steps.
      curve: The metric on validation in the final: seeds x steps.
      seconds_per_step: The median time of a step of one of the runs, which are trained
        together.
      seconds: What all took, with compilation.
    """

    name: str
    recipe: str
    rate: float
    rates: np.ndarray
    validation: np.ndarray
    grown: int
    at_edge: bool
    final_rates: np.ndarray
    test: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    curve: np.ndarray
    seconds_per_step: float
    seconds: float

    def __repr__(self) -> str:
        return f"<RaceEntry {self.name}: {self.mean:.4g} at {_rate(self.rate)}>"

    @property
    def scores(self) -> np.ndarray:
        """The metric on test at the chosen rate, for each seed."""
        return self.test[len(self.final_rates) // 2]

    @property
    def mean(self) -> float:
        """The mean of the scores; NaN if a run diverged."""
        return float(self.scores.mean())

    @property
    def deviation(self) -> float:
        """The standard deviation of the scores; NaN for a single seed."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else math.nan

    @property
    def diverged(self) -> int:
        """How many runs of the tuning diverged."""
        return int(np.isnan(self.validation).sum())


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RaceResult:
    """The result of a `race`, the best optimizer first.

    Args:
      task: The name of the task.
      metric: The name of the metric.
      higher_is_better: Whether a larger metric is better.
      steps: Steps of a run.
      batch_size: Examples in a batch, if that is known.
      rates: How many learning rates each optimizer tried, before its grid grew.
      factor: What lies between two rates.
      seeds: Runs at each rate.
      schedule: What the rates are multiplied by.
      device: Where it ran.
      entries: The optimizers.
    """

    task: str
    metric: str
    higher_is_better: bool
    steps: int
    batch_size: int | None
    rates: int
    factor: float
    seeds: int
    schedule: str
    device: str
    entries: tuple[RaceEntry, ...]

    def __repr__(self) -> str:
        return f"<RaceResult {self.task}: {', '.join(e.name for e in self.entries)}>"

    def __str__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def title(self) -> str:
        """What was compared, in a line."""
        better = "higher" if self.higher_is_better else "lower"
        batch = f" of {self.batch_size}" if self.batch_size else ""
        return (
            f"{self.task}: {self.metric} on test after {self.steps} steps{batch} "
            f"({better} is better)"
        )

    def table(self) -> str:
        """The table as text; 80 columns are enough unless a name is long."""
        head, rows = self._cells(" ± ")
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [_aligned(row, widths) for row in (head, *rows)]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join(
            [
                *textwrap.wrap(self.title(), 80),
                "",
                lines[0],
                rule,
                *lines[1:],
                "",
                *(
                    line
                    for note in self.notes()
                    for line in textwrap.wrap(note, 80, subsequent_indent="  ")
                ),
            ]
        )

    def markdown(self) -> str:
        """The table in Markdown, with its notes."""
        head, rows = self._cells(" ± ")
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
        table = ["| " + " | ".join(line) + " |" for line in lines]
        notes = [
            line
            for note in self.notes()
            for line in textwrap.wrap(
                note, 88, initial_indent="- ", subsequent_indent="  "
            )
        ]
        return "\n".join([*textwrap.wrap(self.title(), 88), "", *table, "", *notes])

    def notes(self) -> list[str]:
        """How the table came about, and what to beware of, in sentences."""
        step, tried = _factor(self.factor), self.rates
        notes = [
            f"± is the standard deviation over {self.seeds} seeds, which took no part "
            "in the choice of the rate."
            if self.seeds > 1
            else "One seed shows no spread: a difference may be chance.",
            f"Each optimizer tried {tried} rates, a factor of {step} apart, with "
            f"{self.seeds} seeds each; the best mean on validation chose. The rate "
            f"multiplies {self.schedule}. A rate with a run that diverged is worst.",
            f"/ {step} and * {step} are the means on test at the neighbouring rates. "
            "Lost: runs of the tuning that diverged.",
        ]
        if level := self.level():
            notes.append(
                f"Within two standard errors of {self.entries[0].name}, and so perhaps "
                f"as good: {', '.join(level)}."
            )
        grown = [
            f"{entry.name} ({_rate(entry.rates[0])} to {_rate(entry.rates[-1])}"
            + ", and the rate is at an edge still!" * entry.at_edge
            + ")"
            for entry in self.entries
            if entry.grown
        ]
        if grown:
            notes.append(
                "The best rate was at an edge of the grid, so the grid grew, for "
                f"{', '.join(grown)}."
            )
        runs = self.rates * self.seeds
        notes.append(
            f"Per step: the median time of a step of one of {runs} runs that train "
            f"together, on {self.device}. All took "
            f"{sum(e.seconds for e in self.entries):.0f} s."
        )
        # What the name and the rate do not say already.
        recipes = [
            f"{entry.name}: {entry.recipe}"
            for entry in self.entries
            if entry.recipe.partition("(learning_rate=")[0] != entry.name
            or "," in entry.recipe
        ]
        return notes + ([f"In full, {'; '.join(recipes)}."] if recipes else [])

    def level(self) -> list[str]:
        """The names of those whose mean is within two standard errors of the first.

        The standard error is that of the difference between two means.
        """
        first, *others = self.entries
        return [
            entry.name
            for entry in others
            if abs(entry.mean - first.mean)
            <= 2 * math.hypot(entry.deviation, first.deviation) / self.seeds**0.5
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the learning curves, and the metric over the learning rate.

        Args:
          path: Where to save the picture, such as ``"race.png"``; None saves nothing.

        Returns:
          Matplotlib's figure.

        Raises:
          ImportError: matplotlib is not installed.
        """
        from jopt.inspect.racing.picture import drawn

        figure = drawn(self)
        if path is not None:
            figure.savefig(path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Everything as data for ``json.dumps``; a run that diverged is None."""
        return _plain(dataclasses.asdict(self))

    def _cells(self, between: str) -> tuple[list[str], list[list[str]]]:
        """The head and the rows of the table."""
        step = _factor(self.factor)
        head = ["optimizer", f"test{between}sd", "rate", f"/ {step}", f"* {step}"]
        head += ["lost", "per step"]
        digits = _digits(self.entries)
        rows = []
        for entry in self.entries:
            middle = len(entry.final_rates) // 2
            means = entry.test.mean(1)
            spread = (
                "" if self.seeds == 1 else between + _fixed(entry.deviation, digits)
            )
            score = _fixed(entry.mean, digits)
            rows.append(
                [
                    entry.name,
                    score if math.isnan(entry.mean) else score + spread,
                    _rate(entry.rate) + "!" * entry.at_edge,
                    _fixed(means[middle - 1], digits),
                    _fixed(means[middle + 1], digits),
                    f"{entry.diverged}/{entry.validation.size}",
                    _time(entry.seconds_per_step),
                ]
            )
        return head, rows


def _aligned(row: Iterable[str], widths: Sequence[int]) -> str:
    first, *rest = (
        text.rjust(width) if i else text.ljust(width)
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def _digits(entries: Iterable[RaceEntry]) -> int:
    """Decimals that show four digits of the largest score."""
    scores = [abs(e.mean) for e in entries if not math.isnan(e.mean) and e.mean]
    largest = max(scores, default=1.0)
    return min(max(3 - math.floor(math.log10(largest)), 0), 6)


def _fixed(x: float, digits: int) -> str:
    if math.isnan(x):
        return "diverged"
    return f"{x:.{digits}f}" if abs(x) < 1e6 else f"{x:.1e}"


def _rate(rate: float) -> str:
    return f"{rate:.2g}"


def _factor(factor: float) -> str:
    square = round(factor**2)
    is_root = math.isclose(factor**2, square) and math.isqrt(square) ** 2 != square
    return f"√{square}" if is_root else f"{factor:g}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
