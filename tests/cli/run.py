"""Commands as they are typed, in this process."""

from __future__ import annotations

import json
import shlex
from typing import Any

from typer.testing import CliRunner, Result

from jopt.cli.app import app


def run(command: str, status: int = 0, **environment: str) -> Result:
    """The result of ``jopt`` with these arguments; its exit status must be this one."""
    usual = dict.fromkeys(("COLUMNS", "FORCE_COLOR", "NO_COLOR"))
    arguments = shlex.split(command)
    env = {**usual, **environment}
    result = CliRunner().invoke(app, arguments, env=env, prog_name="jopt")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    # A message goes to stderr, without a traceback, and results to stdout.
    assert "Traceback" not in result.output
    return result


def data(command: str, status: int = 0) -> Any:
    """What the command writes with ``--json``; stdout must have nothing else."""
    return json.loads(run(f"{command} --json", status).stdout)
