"""``jopt race``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jopt
from jopt.cli.output import UsageError, write_json
from jopt.cli.values import configured, separate
from jopt.values import registry


def race(
    task: str, optimizers: list[str], out: Path | None, as_json: bool, options: Any
) -> None:
    """Race optimizers on a task; write the table, and files into a folder."""
    field = separate(optimizers) or None
    for text in field or ():
        if "(" in text:
            configured(text)
        elif text not in jopt.names():
            raise UsageError(registry.unknown(text))
    try:
        chosen = jopt.inspect.race_task(task)
    except ValueError as error:
        raise UsageError(error) from error
    given = {name: x for name, x in options.items() if x is not None}
    result = jopt.inspect.race(chosen, field, **given)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        result.plot(out / f"{task}.png")
        (out / f"{task}.md").write_text(_page(task, result, field, given))
    if as_json:
        write_json(result.to_dict())
    else:
        print(result)


def _page(task: str, result: Any, field: list[str] | None, options: Any) -> str:
    """The table of a race as a page, with the command that makes it again."""
    words = ["jopt", "race", task]
    words += [] if field is None else ["--optimizers", ", ".join(field)]
    words += [word for n, x in options.items() for word in (f"--{n}", str(x))]
    return (
        f"# A race on {task}\n\n```sh\n{shlex.join(words)} --out .\n```\n\n"
        f"{result.markdown().strip()}\n\n![Curves and rates on {task}]({task}.png)\n"
    )
