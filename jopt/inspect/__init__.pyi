"""Every public name of jopt.inspect."""

from .description import (
    Description as Description,
    Leaf as Leaf,
    Stage as Stage,
    Totals as Totals,
    describe as describe,
)
from .facts import Number as Number
