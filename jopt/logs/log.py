"""``Log``: when numbers are fetched and written. A kind of log says where to."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jopt.logs.rows import Record, Row, fetched
from jopt.values import arguments
from jopt.values.arguments import abbreviated


PATIENCE = 10.0  # seconds after which what is ready is written, however little


class Log:
    """Numbers by step. This class decides when to write them, a subclass where to.

    ``log(step, *metrics, **numbers)`` logs a step: dicts of numbers by name, such as
    `jopt.metrics`, and numbers as keywords. In a dict inside a dict, a name follows the
    outer one and a slash. A second call for the same step adds to it.

    A log of your own has a method ``write`` that takes records, dicts with ``"step"``
    first, and the times when they were logged; and, if there is something to close, a
    method ``finish``.

    A log writes when the device has computed ``every`` steps, and after ten seconds
    what is ready. At `flush`, `close`, the end of a ``with`` and the end of the
    program it waits for the rest and writes it. A program that is killed thus loses
    ``every`` steps at most, or those that the device is behind.

    Args:
      every: How many steps are fetched and written at once.

    >>> class Printed(Log):
    ...     def write(self, records, times):
    ...         for record in records:
    ...             print(record)
    >>> with Printed() as log:
    ...     log(0, loss=0.5)
    ...     log(1, {"train": {"loss": 0.25}}, rate=jax.numpy.float32(0.1))
    {'step': 0, 'loss': 0.5}
    {'step': 1, 'train/loss': 0.25, 'rate': 0.1}
    """

    def __init__(self, *, every: int = 50):
        self.every = arguments.whole("every", every)
        arguments.at_least(1, every=self.every)
        self.closed = False
        self._rows: list[Row] = []
        self._step: int | None = None
        self._written = time.monotonic()
        self._whole: Log | None = None  # the log of several that this one is part of

    def write(self, records: Sequence[Record], times: Sequence[float]) -> None:
        """Write records; ``times`` has the seconds since 1970 of each."""
        raise NotImplementedError(f"{type(self).__name__} needs a method write")

    def finish(self) -> None:
        """Close what is open; there is nothing more to write."""

    def __call__(self, step: int, *metrics: Mapping[str, Any], **numbers: Any) -> None:
        """Log numbers of a step, without waiting for them.

        Args:
          step: The number of the step, known to the program. It may be the same as in
            the call before, to add to that step, but not smaller.
          *metrics: Dicts of numbers by name, such as `jopt.metrics`. In a dict inside a
            dict, a name follows the outer one and a slash.
          **numbers: Numbers by name, and dicts. A number is one of Python, NumPy or
            JAX; a bool counts as 0 or 1.

        Raises:
          TypeError: Something is not a number, or has no value yet, inside jit.
          ValueError: An array has more than one number or has been donated, a name is
            given twice for the step, or the step is smaller than the one before; or the
            log is closed.
        """
        if self.closed:
            raise ValueError(f"{self} is closed, and takes no more steps")
        if self._whole is not None:
            raise ValueError(f"{self} is part of {self._whole}: call that one")
        step = self._checked(step)
        row = Row(step, [*metrics, numbers])
        if self._step is None:
            self._keep()
        if self._rows and self._rows[-1].step == step:
            self._rows[-1].add(row)
        else:
            self._rows.append(row)
        self._step = step
        self._write_ready()

    def flush(self) -> None:
        """Write all numbers logged so far; waits for those not computed yet."""
        if self._whole is not None:
            self._whole.flush()
        else:
            self._write(len(self._rows))

    def close(self) -> None:
        """Write all numbers logged so far, and close; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        try:
            self.flush()
        finally:
            self.finish()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, _type: Any, error: BaseException | None, _trace: Any) -> None:
        try:
            self.close()
        except Exception as problem:
            if error is None:
                raise
            # The first error explains more than what follows from it.
            error.add_note(f"then {self} could not write all steps: {problem}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _keep(self) -> None:
        """Make sure that the end of the program writes what is left."""
        atexit.register(self.close)

    def _checked(self, step: Any) -> int:
        if isinstance(step, jax.Array):
            raise TypeError(
                "step must be a number that the program knows without waiting for the "
                f"device, got {abbreviated(jax.typeof(step))}: count the steps in "
                "Python, or wait for it with int(step)"
            )
        if isinstance(step, bool) or not isinstance(step, int | np.integer):
            raise TypeError(f"step must be a whole number, got {abbreviated(step)}")
        if self._step is not None and step < self._step:
            raise ValueError(
                f"step {step} comes after step {self._step}: steps must not go back. A "
                "run that starts again needs a log of its own, or existing='resume'"
            )
        return int(step)

    def _write_ready(self) -> None:
        # The last step may get more numbers.
        rows = self._rows[:-1]
        if len(rows) >= self.every and rows[self.every - 1].is_ready():
            self._write(self.every)
        elif rows and time.monotonic() > self._written + PATIENCE:
            ready = [row.is_ready() for row in rows]
            self._write([*ready, False].index(False))

    def _write(self, count: int) -> None:
        if not count:
            return
        rows, self._rows = self._rows[:count], self._rows[count:]
        self._written = time.monotonic()
        records, error = fetched(rows)
        if records:
            self.write(records, [row.time for row in rows[: len(records)]])
        if error is not None:
            raise error


class _Together(Log):
    """See `together`."""

    def __init__(self, logs: tuple[Log, ...], every: int):
        super().__init__(every=every)
        self._logs = logs
        for log in logs:
            if not isinstance(log, Log) or log.closed or log._whole is not None:
                raise ValueError(
                    f"together takes logs that are open and not part of another one, "
                    f"got {abbreviated(log)}"
                )
            log.flush()
            log._whole = self

    def write(self, records: Sequence[Record], times: Sequence[float]) -> None:
        # What stops one of them, such as a full disk, does not stop the others.
        with contextlib.ExitStack() as stack:
            for log in reversed(self._logs):
                stack.callback(log.write, records, times)

    def finish(self) -> None:
        with contextlib.ExitStack() as stack:
            for log in reversed(self._logs):
                log.closed = True
                stack.callback(log.finish)

    def __repr__(self) -> str:
        return f"together({', '.join(map(repr, self._logs))})"


def together(*logs: Log, every: int = 50) -> Log:
    """Make one log of several: each gets all numbers, which are fetched once.

    Args:
      *logs: The logs. Call and close the result, not these.
      every: How many steps are fetched and written at once.

    Returns:
      A log.

    Raises:
      ValueError: Something is not a log, is closed, or is part of another one.

    >>> import jopt
    >>> a, b = jopt.logs.Memory(), jopt.logs.Memory()
    >>> with jopt.logs.together(a, b) as log:
    ...     log(0, loss=0.5)
    >>> a.records == b.records == [{"step": 0, "loss": 0.5}]
    True
    """
    return _Together(logs, every)
