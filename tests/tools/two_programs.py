"""Programs that save to the same paths at the same time.

Each starts in a fork, so this module makes no array when it is imported.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jopt
from jopt.checkpoint import Checkpointer, save


TX = jopt.sgd(0.1, momentum=0.9)


def program(
    directory: Path, form: str, rounds: int, start: Any, told: Connection
) -> None:
    """Save in every round, and tell how each save ended."""
    jax.config.update("jax_platforms", "cpu")
    params = {"w": jnp.arange(3.0)}
    given = {"params": params, "opt_state": TX.init(params), "tx": TX}
    checkpointer = Checkpointer(directory, keep=3, keep_best=1)
    results = []
    for step in range(rounds):
        start.wait(60)
        try:
            if form == "steps":
                checkpointer.save(step, **given, value=step)
            else:
                save(directory / f"{step}{form}", **given)
            results.append("saved")
        except (OSError, ValueError) as error:
            results.append(f"{type(error).__name__}: {error}")
    told.send(results)


def results(directory: Path, form: str, rounds: int) -> list[tuple[str, str]]:
    """How the saves of two programs ended, by round; none of them may hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orbax.checkpoint", __name__])
    start = context.Barrier(2)
    hears, tells = context.Pipe(duplex=False)
    programs = [
        context.Process(
            target=program, args=(directory, form, rounds, start, tells), daemon=True
        )
        for _ in range(2)
    ]
    for process in programs:
        process.start()
    found = []
    for _ in programs:
        assert hears.poll(120), "a program hangs"
        found.append(hears.recv())
    for process in programs:
        process.join(30)
        assert process.exitcode == 0, "a program does not end"
    return list(zip(*found, strict=True))
