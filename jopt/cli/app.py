"""The commands, their arguments and their help.

A command imports what it needs when it runs: help and usage errors do not wait for JAX.
"""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from jopt._version import __version__
from jopt.cli.output import reported


app = typer.Typer(
    help="Optimizers for JAX: look them up, describe, draw, check and compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
checkpoint = typer.Typer(
    help="Look into checkpoints: what is in them, are they whole, how do they differ.",
    no_args_is_help=True,
)
app.add_typer(checkpoint, name="checkpoint")

AsJSON = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]


class Kind(enum.StrEnum):
    """The kinds of factories."""

    optimizer = enum.auto()
    schedule = enum.auto()
    transform = enum.auto()
    wrapper = enum.auto()


def without_accelerator() -> None:
    """Let JAX use the CPU: these commands compute next to nothing."""
    if "jax" not in sys.modules:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _version(asked: bool) -> None:
    if asked:
        print(f"jopt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Options of all commands."""


@app.command("list")
@reported
def list_(
    pattern: Annotated[
        str, typer.Argument(help="A part of the name, or a pattern such as 'adam*'.")
    ] = "",
    kind: Annotated[
        Kind | None, typer.Option(help="Only what is of this kind.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """List optimizers, schedules, transforms and wrappers by name."""
    without_accelerator()
    from jopt.cli import catalogue

    raise typer.Exit(catalogue.list_factories(pattern, kind, as_json))


@app.command()
@reported
def show(
    name: Annotated[str, typer.Argument(help="A name that 'jopt list' lists.")],
    as_json: AsJSON = False,
) -> None:
    """Show the rule, paper, defaults and memory of one, and who has its numbers."""
    without_accelerator()
    from jopt.cli import catalogue

    catalogue.show(name, as_json)


@app.command()
@reported
def describe(
    config: Annotated[
        str,
        typer.Argument(
            help="A call such as 'adamw(1e-3)', or a file: JSON, YAML, a checkpoint."
        ),
    ],
    params: Annotated[
        Path | None,
        typer.Option(
            help="Parameters: a safetensors file, a checkpoint, or JSON with shapes."
        ),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Describe what an optimizer does to which parameter, and what it stores."""
    without_accelerator()
    from jopt.cli import experiments

    experiments.describe(config, params, as_json)


@app.command("plot-schedule")
@reported
def plot_schedule(
    schedules: Annotated[
        list[str],
        typer.Argument(help="Calls such as 'cosine_decay_schedule(1e-3, 1000)'."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The picture's file: png, pdf or svg."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps to draw.")] = None,
    steps_per_epoch: Annotated[
        float | None, typer.Option(help="Count epochs of so many steps.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="A logarithmic axis.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Draw schedules into a file; --json writes the values."""
    without_accelerator()
    from jopt.cli import experiments

    experiments.plot_schedule(schedules, out, steps, steps_per_epoch, log, as_json)


@app.command()
@reported
def check(
    target: Annotated[
        str,
        typer.Argument(
            help="'mymodule:my_optimizer', or a call such as 'adamw(1e-3)'.",
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this law, or laws like '*jit*'; may be repeated."),
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(help="Parameters to check it with, as for 'describe'."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Test the laws for an optimizer, schedule or wrapper; exit with 1 if one fails."""
    from jopt.cli import experiments

    raise typer.Exit(experiments.check(target, only or [], params, as_json))


@app.command()
@reported
def race(
    task: Annotated[str, typer.Argument(help="A task, such as 'digits'.")],
    optimizers: Annotated[
        list[str] | None,
        typer.Option(
            help="Names and calls with commas between: 'sgd(momentum=0.9), adamw'."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a run.")] = None,
    rates: Annotated[int | None, typer.Option(help="Learning rates to try.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs at each rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where all seeds begin.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the table and the picture.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Compare optimizers on a task, each at its own best learning rate."""
    from jopt.cli import races

    options = {"steps": steps, "rates": rates, "seeds": seeds, "seed": seed}
    races.race(task, optimizers or [], out, as_json, options)


@checkpoint.command("ls")
@reported
def ls(
    path: Annotated[Path, typer.Argument(help="A checkpoint, or the folder of a run.")],
    as_json: AsJSON = False,
) -> None:
    """List the arrays of a checkpoint, or the checkpoints of a run."""
    without_accelerator()
    from jopt.cli import checkpoints

    checkpoints.ls(path, as_json)


@checkpoint.command("verify")
@reported
def verify(
    paths: Annotated[
        list[Path], typer.Argument(help="Checkpoints, and folders of runs.")
    ],
    as_json: AsJSON = False,
) -> None:
    """Read all bytes and compare their checksums; exit with 1 if there is damage."""
    without_accelerator()
    from jopt.cli import checkpoints

    raise typer.Exit(checkpoints.verify(paths, as_json))


@checkpoint.command("diff")
@reported
def diff(
    a: Annotated[Path, typer.Argument(help="A checkpoint.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another one.", metavar="B")],
    as_json: AsJSON = False,
) -> None:
    """Show what differs between two checkpoints; exit with 1 if something does."""
    without_accelerator()
    from jopt.cli import checkpoints

    raise typer.Exit(checkpoints.diff(a, b, as_json))
