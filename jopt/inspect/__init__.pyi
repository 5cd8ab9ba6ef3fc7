"""Every public name of jopt.inspect."""

from .description import (
    Description as Description,
    Leaf as Leaf,
    Stage as Stage,
    Totals as Totals,
    describe as describe,
)
from .device_bytes import MemoryUse as MemoryUse, memory as memory
from .facts import Number as Number
from .range_test import RangeTest as RangeTest, lr_range_test as lr_range_test
from .racing.protocol import race as race
from .racing.result import RaceEntry as RaceEntry, RaceResult as RaceResult
from .racing.tasks import RaceTask as RaceTask, race_task as race_task
