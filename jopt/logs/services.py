"""``TensorBoard`` and ``Wandb``: a run in a program that draws it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import jax

from jopt.checkpoint.places import local
from jopt.logs.log import Log
from jopt.logs.rows import Record
from jopt.logs.text_files import Existing, already
from jopt.values import arguments


class TensorBoard(Log):
    """Write event files for TensorBoard; a name with slashes is in the group before it.

    It needs tensorboardX: ``pip install "jopt[logs]"``. In a run with several
    processes, the first one writes.

    Args:
      folder: The folder of the run, such as ``"runs/adamw"``; a missing one is made.
      every: See `Log`.
      existing: What to do with event files that are there: ``"error"``; ``"resume"``,
        which continues, and makes TensorBoard hide the steps from the first logged one
        on, because a resumed run computes them again; or ``"replace"``.

    Raises:
      FileExistsError: There are event files, and ``existing`` does not say what to do.
      ImportError: tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int = 50,
        existing: Existing = "error",
    ):
        super().__init__(every=every)
        arguments.one_of(("error", "resume", "replace"), existing=existing)
        self.folder = local("folder", folder)
        self._existing = existing
        self._library, self._events = _tensorboard()
        self._writer: Any = None
        self._writes = jax.process_index() == 0
        if self._writes and existing == "error" and self._files():
            raise already(self, self._files()[0])

    def write(self, records: Sequence[Record], times: Sequence[float]) -> None:
        if not self._writes:
            return
        if self._writer is None:
            self._writer = self._start(int(records[0]["step"]))
        for record, at in zip(records, times, strict=True):
            numbers = {name: x for name, x in record.items() if name != "step"}
            values = [{"tag": name, "simple_value": x} for name, x in numbers.items()]
            self._add(wall_time=at, step=record["step"], summary={"value": values})
        self._writer.flush()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def __repr__(self) -> str:
        return f"TensorBoard({str(self.folder)!r})"

    def _files(self) -> list[Any]:
        return sorted(self.folder.glob("*.tfevents.*"))

    def _start(self, step: int) -> Any:
        old = self._files()
        if self._existing == "replace":
            for file in old:
                file.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        path = self.folder / f"{name}.{os.getpid()}.{len(old)}"
        # Its SummaryWriter has a queue, which flush does not empty.
        self._writer = self._library.RecordWriter(str(path))
        self._add(wall_time=time.time(), file_version="brain.Event:2")
        # The first start of a folder begins a run; at a later one, TensorBoard forgets
        # what it knows of this step and of all after it.
        start = self._events.SessionLog.START
        self._add(wall_time=time.time(), step=step, session_log={"status": start})
        return self._writer

    def _add(self, **fields: Any) -> None:
        self._writer.write(self._events.Event(**fields).SerializeToString())


class Wandb(Log):
    """Log to a run of Weights & Biases, with the steps of this program.

    In a run with several processes, the first one writes.

    Args:
      run: What ``wandb.init`` returned; None takes the run that is active. It stays
        open: finish it with ``run.finish()``.
      every: See `Log`.

    Raises:
      ImportError: ``run`` is None, and wandb is not installed.
      ValueError: ``run`` is None, and no run is active.

    >>> run = wandb.init(project="digits")  # doctest: +SKIP
    >>> log = jopt.logs.Wandb(run)  # doctest: +SKIP
    """

    def __init__(self, run: Any = None, *, every: int = 50):
        super().__init__(every=every)
        self._writes = jax.process_index() == 0
        self.run: Any = _active_run() if run is None and self._writes else run

    def write(self, records: Sequence[Record], times: Sequence[float]) -> None:
        for record in records if self._writes else ():
            numbers = {name: x for name, x in record.items() if name != "step"}
            self.run.log(numbers, step=record["step"])


def _tensorboard() -> tuple[Any, Any]:
    try:
        import tensorboardX
        from tensorboardX.proto import event_pb2
    except ImportError as error:
        raise ImportError(
            'a TensorBoard log needs tensorboardX: pip install "jopt[logs]"'
        ) from error
    return tensorboardX, event_pb2


def _active_run() -> Any:
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError("a Wandb log needs wandb: pip install wandb") from error
    if wandb.run is None:
        raise ValueError(
            "no run of wandb is active: call wandb.init(…) before, or pass its result, "
            "Wandb(run)"
        )
    return wandb.run
