"""The numbers of a run by name, from what programs keep them in and write them to."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jopt.values.arguments import abbreviated, suggestion


class Series(NamedTuple):
    """A number of a run, at the steps that have it."""

    steps: np.ndarray
    values: np.ndarray


def read(history: Any) -> dict[str, Series]:
    """The numbers of a run by name.

    Args:
      history: Dicts of numbers, one a step; or a dict of a list for each name; or the
        path of a CSV file or of JSON lines; or an object with such ``records``. The
        name ``"step"`` is that of the step, else steps count from 0. What is None,
        empty or not a number is left out of its step.

    Returns:
      The numbers by name, in the order of the steps.

    Raises:
      TypeError: ``history`` is something else.
      ValueError: The history is empty, its lists differ in length, or a line of a file
        cannot be read.
    """
    source = "the history"
    records: Iterable[Any]
    if isinstance(history, str | os.PathLike):
        source, records = str(history), _of_file(Path(history))
    elif isinstance(history, Mapping):
        records = _of_columns(history)
    else:
        records = getattr(history, "records", history)
    if not isinstance(records, Sequence) or not all(
        isinstance(x, Mapping) for x in records
    ):
        raise TypeError(
            "history must be a list of dicts, one a step, a dict of lists, or the path "
            f"of a CSV or JSON lines file, got {abbreviated(history)}"
        )
    points: dict[str, list[tuple[float, float]]] = {}
    for i, record in enumerate(records):
        step = _number(record.get("step"))
        for name, value in record.items():
            number = _number(value)
            if number is not None and name != "step":
                at = float(i) if step is None else step
                points.setdefault(str(name), []).append((at, number))
    if not points:
        raise ValueError(f"{source} has no numbers: there is nothing to draw")
    result = {}
    for name, pairs in points.items():
        # A resumed run may repeat steps; a line that went back would be confusing.
        steps, values = np.array(sorted(pairs, key=lambda pair: pair[0])).T
        result[name] = Series(steps, values)
    return result


def of_name(numbers: Mapping[str, Series], name: str) -> Series:
    """The number of this name; raise if the run has none."""
    if name not in numbers:
        raise KeyError(
            f"the history has no {name!r}.{suggestion(name, numbers)} It has "
            f"{sorted(numbers)}"
        )
    return numbers[name]


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, str | bytes) and not value.strip()):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    lengths = {}
    for name, values in columns.items():
        if np.ndim(values) != 1:
            raise TypeError(
                f"history[{name!r}] must be a list of numbers, one a step, got "
                f"{abbreviated(values)}"
            )
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the lists of history must be equally long, got the lengths {lengths}. "
            "For numbers that only some steps have, use a list of dicts, one a step"
        )
    n = next(iter(lengths.values()), 0)
    arrays = {name: np.asarray(values, object) for name, values in columns.items()}
    return [{name: values[i] for name, values in arrays.items()} for i in range(n)]


def _of_file(path: Path) -> list[Any]:
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    if not text.lstrip().startswith("{"):
        return list(csv.DictReader(text.splitlines()))
    records = []
    for i, line in enumerate(text.splitlines(), 1):
        try:
            records += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {i} is not JSON: {abbreviated(line)} ({error})"
            ) from None
    return records
