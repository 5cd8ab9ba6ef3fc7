"""The command line: ``jopt``, or ``python -m jopt``."""

import os
import sys


def main() -> None:
    """Run the command of this program's arguments."""
    try:
        import typer  # noqa: F401
    except ImportError:
        raise SystemExit(
            'jopt: the command line needs typer: pip install "jopt[cli]"'
        ) from None
    from jopt.cli.app import app

    try:
        app(prog_name="jopt")
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `jopt list | head`: Python would complain at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
