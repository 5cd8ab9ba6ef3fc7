"""``Memory``: the numbers of a run in the program."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jopt.logs.log import Log
from jopt.logs.rows import Record


class Memory(Log):
    """Keep the numbers in the program, as records and as columns.

    Args:
      every: See `Log`.

    >>> log = Memory()
    >>> for step in range(3):
    ...     log(step, loss=1 / (step + 1))
    >>> log(3, accuracy=0.5)
    >>> log.records[1]
    {'step': 1, 'loss': 0.5}
    >>> log.columns["loss"]
    array([1.        , 0.5       , 0.33333333,        nan])
    """

    def __init__(self, *, every: int = 50):
        super().__init__(every=every)
        self._records: list[Record] = []

    def write(self, records: Sequence[Record], times: Sequence[float]) -> None:
        self._records += records

    def _keep(self) -> None:
        """At the end of the program nobody can read what is left."""

    @property
    def records(self) -> list[Record]:
        """A dict for each step, ``"step"`` first; waits for all of them."""
        self.flush()
        return self._records

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """An array for each name, NaN where a step lacks it."""
        records = self.records
        names = dict.fromkeys(name for record in records for name in record)
        return {
            name: np.array([record.get(name, math.nan) for record in records])
            for name in names
        }
