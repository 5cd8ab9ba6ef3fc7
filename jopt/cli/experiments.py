"""``jopt describe``, ``plot-schedule`` and ``check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import jopt
from jopt.cli.output import UsageError, write, write_json
from jopt.cli.shapes import FORMS, parameters
from jopt.cli.values import configured, is_checkpoint, named


def describe(config: str, params: Path | None, as_json: bool) -> None:
    """Write what an optimizer does to which parameter."""
    if params is None and not is_checkpoint(config):
        raise UsageError(f"--params is missing: the parameters, from {FORMS}")
    tx = configured(config)
    tree = parameters(Path(config) if params is None else params)
    description = jopt.describe(tx, tree)
    if as_json:
        write_json(description.to_dict())
    else:
        write(description)


def plot_schedule(
    texts: list[str],
    out: Path | None,
    steps: int | None,
    steps_per_epoch: float | None,
    log: bool,
    as_json: bool,
) -> None:
    """Draw schedules into a file, or write their values."""
    if out is None and not as_json:
        raise UsageError("--out is missing: the picture's file, such as schedule.png")
    schedules = [configured(text) for text in texts]
    for text, schedule in zip(texts, schedules, strict=True):
        if not callable(schedule) or hasattr(schedule, "init"):
            raise UsageError(f"{text!r} is not a schedule, but {schedule}")
    os.environ.setdefault("MPLBACKEND", "Agg")  # a file needs no screen
    labelled = [{text: x} for text, x in zip(texts, schedules, strict=True)]
    ax = jopt.plot.schedules(
        *labelled, steps=steps, steps_per_epoch=steps_per_epoch, log=log
    )
    if out is not None:
        _save(ax.figure, out)
    if as_json:
        drawn = [x for x in ax.get_lines() if not str(x.get_label()).startswith("_")]
        horizontal = "steps" if steps_per_epoch is None else "epochs"
        write_json(
            [
                {
                    "schedule": repr(schedule),
                    horizontal: np.asarray(line.get_xdata(), float).tolist(),
                    "values": np.asarray(line.get_ydata(), float).tolist(),
                }
                for schedule, line in zip(schedules, drawn, strict=False)
            ]
        )
    else:
        print(out)


def check(target: str, only: list[str], params: Path | None, as_json: bool) -> int:
    """Test the laws; return the exit status."""
    report = jopt.testing.report(
        named(target),
        None if params is None else parameters(params),
        only=only,
    )
    if as_json:
        write_json(report.to_dict())
    else:
        print(report)
    return 0 if report.ok else 1


def _save(figure: Any, out: Path) -> None:
    try:
        figure.savefig(out, dpi=300, bbox_inches="tight")
    except ValueError as error:  # matplotlib lists the formats that it knows
        raise UsageError(f"{out}: {error}") from error
