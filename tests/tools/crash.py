"""Kill a program that saves checkpoints, again and again, and look at what is left.

python -m tests.tools.crash [kills]
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.checkpoint import Checkpointer


TX = jopt.adam(1e-3)
KEEP = 2


def contents(step: int) -> tuple[Any, Any]:
    """Parameters and slots in which every number tells the step."""
    params = {"kernel": jnp.zeros((300, 200)), "bias": jnp.zeros(7, jnp.bfloat16)}
    state = TX.init(params)

    def filled(x: Any) -> Any:
        return jnp.full(x.shape, step % 100, x.dtype)

    filled_state = state | {
        "scale_by_adam": jax.tree.map(filled, state["scale_by_adam"])
    }
    return jax.tree.map(filled, params), filled_state


def opened(directory: Path, asynchronous: bool) -> Checkpointer:
    return Checkpointer(directory, keep=KEEP, keep_best=1, asynchronous=asynchronous)


def save_for_ever(directory: Path, asynchronous: bool, told: Connection) -> None:
    """The program: saves, and tells each step that is on disk."""
    jax.config.update("jax_platforms", "cpu")
    checkpointer = opened(directory, asynchronous)
    first = step = (checkpointer.latest or 0) + 1
    while True:
        params, state = contents(step)
        checkpointer.save(
            step,
            params=params,
            opt_state=state,
            tx=TX,
            rng=jax.random.key(step),
            metadata={"step": step},
            value=abs(step - 3),
        )
        # An asynchronous save is on disk when the next one has started.
        on_disk = step - 1 if asynchronous else step
        if on_disk >= first:
            told.send(on_disk)
        step += 1


def check(directory: Path) -> int:
    """Restore the newest checkpoint, see that all of it is of one step, and say which.

    What numbers it must have does not come from the code that wrote them.
    """
    checkpointer = opened(directory, False)
    latest = checkpointer.latest
    assert latest is not None
    params, _ = contents(0)
    found = checkpointer.restore(params=params, tx=TX)
    assert found.step == found.metadata["step"] == latest
    assert (jax.random.key_data(found.rng) == jnp.array([0, latest], jnp.uint32)).all()
    for leaf in jax.tree.leaves((found.params, found.opt_state["scale_by_adam"])):
        expected = np.full(leaf.shape, latest % 100, leaf.dtype)
        np.testing.assert_array_equal(np.asarray(leaf), expected)
    return latest


def kills(
    directory: Path, times: int, asynchronous: bool
) -> Iterator[tuple[int, bool]]:
    """After each kill, the newest step and whether something unfinished was left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orbax.checkpoint", __name__])
    rng = random.Random(times)
    for _ in range(times):
        hears, tells = context.Pipe(duplex=False)
        process = context.Process(
            target=save_for_ever, args=(directory, asynchronous, tells), daemon=True
        )
        process.start()
        tells.close()
        assert hears.poll(120), "the program saved nothing"
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        process.join()
        on_disk = 0
        try:
            while hears.poll():
                on_disk = hears.recv()
        except EOFError:
            pass
        latest = check(directory)
        assert latest >= on_disk, "a save that returned is not on disk"
        yield latest, any(directory.glob("*.partial"))


def save_once_more(directory: Path) -> None:
    """After which there is nothing but what was to be kept: the best and the newest."""
    checkpointer = opened(directory, False)
    step = (checkpointer.latest or 0) + 1
    params, state = contents(step)
    best = checkpointer.best
    checkpointer.save(step, params=params, opt_state=state, tx=TX, value=abs(step - 3))
    names = sorted(int(path.name) for path in directory.iterdir())  # no leftovers
    assert names == sorted({best, step - 1, step}), names


def main(times: int) -> None:
    for asynchronous in (False, True):
        kind = "asynchronous" if asynchronous else "synchronous"
        with tempfile.TemporaryDirectory() as folder:
            found = list(kills(Path(folder) / "run", times, asynchronous))
            save_once_more(Path(folder) / "run")
        left = sum(leftover for _, leftover in found)
        print(
            f"{times} kills during {kind} saves: the newest checkpoint was always "
            f"whole, the last of step {found[-1][0]}; {left} left something unfinished"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
