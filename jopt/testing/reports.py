"""What a check found, to print and to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple


Outcome = Literal["ok", "failed", "skipped"]
MARKS: dict[str, str] = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}
WIDTH = 88


class Result(NamedTuple):
    """What came of one law.

    Attributes:
      law: The name of the law.
      group: Its subject.
      statement: What has to hold.
      outcome: "ok", "failed" or "skipped".
      message: Why it failed, or why it was skipped.
      fix: How to make it hold, if it failed.
      seconds: How long it took.
      error: What was raised, if it failed, with its traceback.
    """

    law: str
    group: str
    statement: str
    outcome: Outcome
    message: str = ""
    fix: str = ""
    seconds: float = 0.0
    error: BaseException | None = None


class Report(Sequence[Result]):
    """The results of a check, one for each law; printing it shows them.

    Attributes:
      title: What was tested.
      results: The results.

    >>> import jopt
    >>> report = jopt.testing.report(jopt.linear_schedule(1.0, 0.0, 10))
    >>> report.ok, len(report.failed)
    (True, 0)
    """

    def __init__(self, title: str, results: Sequence[Result]):
        self.title, self.results = title, tuple(results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def ok(self) -> bool:
        """Whether no law failed."""
        return not self.failed

    @property
    def passed(self) -> list[Result]:
        """The results of laws that hold."""
        return [r for r in self if r.outcome == "ok"]

    @property
    def failed(self) -> list[Result]:
        """The results of laws that do not hold."""
        return [r for r in self if r.outcome == "failed"]

    @property
    def skipped(self) -> list[Result]:
        """The results of laws that do not apply."""
        return [r for r in self if r.outcome == "skipped"]

    def to_dict(self) -> dict[str, Any]:
        """The report as data for JSON."""
        return {
            "title": self.title,
            "ok": self.ok,
            "results": [
                {n: x for n, x in r._asdict().items() if n != "error"} for r in self
            ],
        }

    def raise_(self) -> None:
        """Raise AssertionError with the report if a law failed."""
        if not self.ok:
            raise AssertionError(f"\n{self}") from self.failed[0].error

    def __str__(self) -> str:
        n = len(self.passed)
        counts = f"{n} law holds" if n == 1 else f"{n} laws hold"
        counts += f", {len(self.failed)} failed" * bool(self.failed)
        counts += f", {len(self.skipped)} skipped" * bool(self.skipped)
        lines = [f"{self.title}: {counts}"]
        group = None
        for r in self:
            if r.group != group:
                lines += ["", r.group]
                group = r.group
            lines += self._lines(r)
        return "\n".join(lines)

    def _lines(self, r: Result) -> list[str]:
        text = f"  {MARKS[r.outcome]:<8} {r.statement}"
        lines = textwrap.wrap(text, WIDTH, subsequent_indent=" " * 11)
        if r.outcome == "skipped":
            return [*lines, *_indented(r.message)]
        if r.outcome == "failed":
            message = [x for line in r.message.splitlines() for x in _indented(line)]
            named = _indented(f"(law: {r.law})")
            return [*lines, *message, *_indented(f"Fix: {r.fix}"), *named]
        return lines

    __repr__ = __str__


def _indented(text: str) -> list[str]:
    blank = " " * 11
    return textwrap.wrap(text, WIDTH, initial_indent=blank, subsequent_indent=blank)
