"""``CSV`` and ``JSONLines``: a run as a text file with a line for each step."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import jax

from jopt.checkpoint.places import local, target
from jopt.logs.log import Log
from jopt.logs.rows import Record
from jopt.values import arguments


Existing = Literal["error", "resume", "replace"]


class TextFile(Log):
    """A file with a line for each step, to which lines are appended."""

    head = 0  # lines before those of the steps

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = 50,
        existing: Existing = "error",
    ):
        super().__init__(every=every)
        arguments.one_of(("error", "resume", "replace"), existing=existing)
        self.path = target(local("path", path))
        self._existing = existing
        self._file: TextIO | None = None
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder: add the name of a file")
        self._writes = jax.process_index() == 0
        if self._writes:
            if existing == "error" and self.path.exists():
                raise already(self, self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, records: Sequence[Record], times: Sequence[float]) -> None:
        if not self._writes:
            return
        if self._file is None:
            self._start(int(records[0]["step"]))
        lines = self.lines(records)  # which may open another file
        assert self._file is not None
        self._file.writelines(lines)
        self._file.flush()

    def finish(self) -> None:
        if self._file is not None:
            self._file.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def lines(self, records: Sequence[Record]) -> list[str]:
        """The lines of records."""
        raise NotImplementedError

    def step_of(self, line: str) -> int:
        """The step of a line."""
        raise NotImplementedError

    def begin(self, head: list[str]) -> None:
        """Read the lines that the file has before those of the steps."""

    def rewrite(self, lines: Iterable[str]) -> None:
        """Replace the file by one with other lines, and go on after them."""
        if self._file is not None:
            self._file.close()
        new = self.path.with_name(f".{self.path.name}.new")
        with new.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        new.replace(self.path)
        self._file = self._opened("a")

    def kept(self) -> list[str]:
        """All lines of the file."""
        with self._opened("r") as file:
            return list(file)

    def _opened(self, mode: str) -> Any:
        return self.path.open(mode, encoding="utf-8", newline="")

    def _start(self, step: int) -> None:
        """Open the file, without the steps that the resumed run computes again."""
        if self._existing != "resume" or not self.path.exists():
            self._file = self._opened("w")
            return
        # A killed program may have left a part of a line.
        lines = [line for line in self.kept() if line.endswith("\n")]
        head, rows = lines[: self.head], lines[self.head :]
        try:
            self.begin(head)
            before = [line for line in rows if self.step_of(line) < step]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{self.path} is not a log that {type(self).__name__} has written "
                f"({error}): choose another path"
            ) from error
        self.rewrite([*head, *before])


def already(log: Log, path: Path) -> FileExistsError:
    """The error for a place where there is a log."""
    kind = type(log).__name__
    return FileExistsError(
        f"there is already {path}. {kind}(…, existing='resume') continues it, "
        "without those of its steps that are logged again; existing='replace' starts "
        "anew"
    )


class CSV(TextFile):
    """Write a table that pandas and spreadsheets read: a line a step, names on top.

    A name that appears later adds a column, which is empty in the lines before. Numbers
    that are not finite are ``nan``, ``inf`` and ``-inf``. A narrow float has few digits
    that give it back: 0.1 for float32's 0.1.

    In a run with several processes, the first one writes.

    Args:
      path: The file; missing folders are made.
      every: See `Log`.
      existing: What to do with a file that is there: ``"error"``; ``"resume"``, which
        continues it, and first removes the steps from the first logged one on, because
        a resumed run computes them again; or ``"replace"``.

    Raises:
      FileExistsError: There is a file, and ``existing`` does not say what to do.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.csv"
    >>> with CSV(path) as log:
    ...     log(0, loss=1.5)
    ...     log(1, loss=math.inf, accuracy=0.5)
    >>> print(path.read_text(), end="")
    step,loss,accuracy
    0,1.5,
    1,inf,0.5
    >>> with CSV(path, existing="resume") as log:
    ...     log(1, loss=0.75)
    >>> print(path.read_text(), end="")
    step,loss,accuracy
    0,1.5,
    1,0.75,
    """

    head = 1

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = 50,
        existing: Existing = "error",
    ):
        super().__init__(path, every=every, existing=existing)
        self._columns: list[str] = []

    def begin(self, head: list[str]) -> None:
        self._columns = next(csv.reader(head), [])
        if self._columns[:1] not in ([], ["step"]):
            raise ValueError(f"its first column is {self._columns[0]!r}")

    def step_of(self, line: str) -> int:
        return int(line.partition(",")[0])

    def lines(self, records: Sequence[Record]) -> list[str]:
        new = dict.fromkeys(x for r in records for x in r if x not in self._columns)
        if new:
            self._columns += new
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(self._columns)
            rest = (f"{x.rstrip()}{',' * len(new)}\n" for x in self.kept()[1:])
            self.rewrite([header.getvalue(), *rest])
        return [
            ",".join(repr(r[x]) if x in r else "" for x in self._columns) + "\n"
            for r in records
        ]


class JSONLines(TextFile):
    """Write a JSON object for each step, one a line.

    JSON cannot write NaN and infinities as numbers. They become ``"NaN"``,
    ``"Infinity"`` and ``"-Infinity"``, which pandas and ``float`` read as numbers. A
    narrow float has few digits that give it back.

    In a run with several processes, the first one writes.

    Args:
      path, every, existing: See `CSV`.

    Raises:
      FileExistsError: There is a file, and ``existing`` does not say what to do.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
    >>> with JSONLines(path) as log:
    ...     log(0, loss=1.5)
    ...     log(1, loss=math.inf, accuracy=0.5)
    >>> print(path.read_text(), end="")
    {"step": 0, "loss": 1.5}
    {"step": 1, "loss": "Infinity", "accuracy": 0.5}
    """

    def step_of(self, line: str) -> int:
        return int(json.loads(line)["step"])

    def lines(self, records: Sequence[Record]) -> list[str]:
        return [
            json.dumps({x: _finite(r[x]) for x in r}, allow_nan=False) + "\n"
            for r in records
        ]


def _finite(x: int | float) -> int | float | str:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
