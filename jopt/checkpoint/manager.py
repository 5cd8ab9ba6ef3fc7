"""Manage the checkpoints of a run: one folder per step, old ones removed."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from jopt.checkpoint import folders
from jopt.checkpoint.contents import Restored, pack, unpack
from jopt.checkpoint.places import local
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments


_writing: set[Checkpointer] = set()


@functools.cache
def _wait_at_exit() -> None:
    """Make a program that ends wait for its checkpoints.

    Python joins threads at exit, but first it stops thread pools from starting work,
    and orbax needs a pool to finish. So the wait must come before that; `atexit` comes
    after it.
    """

    def wait():
        for checkpointer in list(_writing):
            checkpointer.wait()

    threading._register_atexit(wait)  # type: ignore[attr-defined]


class Checkpointer:
    """Write one checkpoint per step into a folder, and restore any of them.

    Only complete checkpoints are visible. One program at a time should write into the
    folder; any number may read. When two write the same step, one of them raises. The
    next `save` removes what a killed program left.

    Args:
      directory: The folder of the run; the first `save` creates it.
      keep: Number of newest checkpoints to keep; None keeps all.
      keep_best: Number of checkpoints with the smallest ``value`` to keep in addition.
      asynchronous: If True, `save` returns as soon as the arrays may be donated, and a
        thread continues to write. The next `save`, `wait` or `close` waits for it and
        raises its error.

    Raises:
      ValueError: ``keep`` is less than 1, or ``keep_best`` less than 0.

    >>> import tempfile, jax.numpy as jnp
    >>> tx, params = jopt.adam(1e-3), {"w": jnp.ones(3)}
    >>> state = tx.init(params)
    >>> with Checkpointer(tempfile.mkdtemp(), keep=2, keep_best=1) as checkpointer:
    ...     for step, loss in [(10, 0.5), (20, 0.3), (30, 0.4), (40, 0.6)]:
    ...         _ = checkpointer.save(
    ...             step, params=params, opt_state=state, tx=tx, value=loss
    ...         )
    >>> checkpointer.steps, checkpointer.latest, checkpointer.best
    ([20, 30, 40], 40, 20)
    >>> checkpointer.restore("best", params=params, tx=tx).step
    20
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int | None = None,
        keep_best: int = 0,
        asynchronous: bool = False,
    ):
        arguments.at_least(0, keep_best=arguments.whole("keep_best", keep_best))
        if keep is not None:
            arguments.at_least(1, keep=arguments.whole("keep", keep))
        self.directory = local("directory", directory)
        self.keep, self.keep_best = keep, keep_best
        self.asynchronous = arguments.flag("asynchronous", asynchronous)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"Checkpointer({str(self.directory)!r}, steps={self.steps})"

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints in the folder, in order."""
        if not self.directory.is_dir():
            return []
        return sorted(
            int(path.name)
            for path in self.directory.iterdir()
            if _is_step(path.name) and folders.is_checkpoint(path)
        )

    @property
    def latest(self) -> int | None:
        """The newest step; None if there is none."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the smallest value; None if no checkpoint has a value.

        A warning names checkpoints whose index is damaged; they are left out.
        """
        best_first, _ = self._by_value()
        return next(iter(best_first), None)

    def save(
        self,
        step: int,
        *,
        params: Any,
        opt_state: Any,
        tx: GradientTransformation | None = None,
        rng: Any = None,
        metadata: Any = None,
        value: float | None = None,
    ) -> Path:
        """Write the checkpoint of a step, then remove checkpoints beyond the limits.

        A save that is still running is waited for and never skipped. On return the
        checkpoint is on disk, or with ``asynchronous`` it is after `wait`.

        Args:
          step: Number of steps done; greater than the step of every checkpoint here.
          params: The parameters.
          opt_state: The state of the optimizer.
          tx: The optimizer; the checkpoint then includes its recipe.
          rng: A random key, or a dict of them by name.
          metadata: Further data to save, as plain JSON.
          value: The number that ``keep_best`` compares, such as the loss; smaller is
            better.

        Returns:
          The checkpoint's folder.

        Raises:
          ValueError: There is a checkpoint of this step or a later one.
          FileExistsError: Another program has written this step meanwhile.
        """
        self.wait()
        arguments.at_least(0, step=arguments.whole("step", step))
        if self.latest is not None and step <= self.latest:
            raise ValueError(
                f"step must be > {self.latest}, the newest checkpoint in "
                f"{self.directory}, got step={step}. To continue from an older one, "
                "write to another directory or delete the newer ones first."
            )
        value = None if value is None else float(value)
        arrays, index = pack(params, opt_state, tx, step, rng, metadata, value)
        path = self.directory / str(step)
        finish = folders.start(path, arrays, index)
        if self.asynchronous:
            self._thread = threading.Thread(target=self._in_thread, args=(finish,))
            self._thread.start()
            _writing.add(self)
            _wait_at_exit()
        else:
            finish()
            self._prune()
        return path

    def restore(
        self,
        step: int | Literal["best"] | None = None,
        *,
        params: Any,
        tx: GradientTransformation | None = None,
        strict: bool = True,
        migrate: Sequence[Any] = (),
        hyperparams: Literal["checkpoint", "recipe"] = "checkpoint",
        shardings: Any = None,
    ) -> Restored:
        """Read a checkpoint, as `restore` does.

        Args:
          step: The step to restore; None is the newest, ``"best"`` the one with the
            smallest value.
          params: Arrays or shapes with the structure, dtypes and shardings to return.
          tx: The optimizer; None skips its state.
          strict: Whether all must be both in the checkpoint and in what is restored.
          migrate: Rules that adapt the checkpoint and its parameters, as for `restore`.
          hyperparams: Whose numbers to use where they differ, ``"checkpoint"`` or
            ``"recipe"``.
          shardings: Other shardings of the optimizer state, as for `restore`.

        Returns:
          ``(params, opt_state, step, rng, metadata)`` as a named tuple.

        Raises:
          FileNotFoundError: There is no such checkpoint; the message lists all steps.
          ValueError: The checkpoint is damaged or does not fit.
        """
        self.wait()
        if step is None:
            chosen = self.latest
        elif isinstance(step, str):
            arguments.one_of(("best",), step=step)
            chosen = self.best
        else:
            chosen = arguments.whole("step", step)
        steps = self.steps
        if chosen not in steps:
            description = (
                "checkpoint" if chosen is None else f"checkpoint of step {chosen!r}"
            )
            if step == "best":
                description += " with a value"
            raise FileNotFoundError(
                f"there is no {description} in {self.directory}, which has the steps "
                f"{steps}"
            )
        path = self.directory / str(chosen)
        with folders.opened(path) as (index, read):
            return unpack(
                path,
                index,
                read,
                params,
                tx,
                strict=strict,
                migrate=migrate,
                hyperparams=hyperparams,
                shardings=shardings,
            )

    def wait(self) -> None:
        """Wait for a save that is running; raise its error if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            _writing.discard(self)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for a save that is running, as leaving the ``with`` block does."""
        self.wait()

    def _in_thread(self, finish: Callable[[], None]) -> None:
        try:
            finish()
            self._prune()
        except BaseException as error:  # wait() raises it
            self._error = error

    def _by_value(self) -> tuple[list[int], set[int]]:
        """Return the steps that have a value, best first, older first among equals.

        Also return the steps whose index cannot be read.
        """
        values, problems = {}, {}
        for step in self.steps:
            try:
                value = folders.index_of(self.directory / str(step))["value"]
            except (OSError, ValueError) as error:
                problems[step] = error
                continue
            if value is not None and not math.isnan(value):
                values[step] = value
        if problems:
            lines = "\n  ".join(str(error) for error in problems.values())
            warnings.warn(
                f"checkpoints in {self.directory} have no value that can be read, and "
                f"are not removed:\n  {lines}\nDelete them when you do not need them.",
                UserWarning,
                stacklevel=2,
            )
        best_first = sorted(values, key=lambda step: (values[step], step))
        return best_first, set(problems)

    def _prune(self) -> None:
        """Remove what is beyond the limits; what goes wrong does not undo a save."""
        if self.keep is None or jax.process_index() != 0:
            return
        kept = set(self.steps[-self.keep :])
        if self.keep_best:
            best_first, damaged = self._by_value()
            kept |= {*best_first[: self.keep_best], *damaged}
        for step in self.steps:
            if step not in kept:
                try:
                    folders.remove(self.directory / str(step))
                except OSError as error:
                    warnings.warn(
                        f"an old checkpoint could not be removed: {error}",
                        UserWarning,
                        stacklevel=2,
                    )


def _is_step(name: str) -> bool:
    """Return whether a number is written as `Checkpointer` writes it, unlike 007."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name
