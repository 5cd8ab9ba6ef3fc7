"""THE table: which setting of jopt equals which setting of which other library.

A row is evaluated in the namespace of its library (for torch and its like, without the
parameters) and in jopt's. Numbers agree within `tol32` in float32 and `tol64` in
float64, absolute and relative, after every step.
"""

from . import (
    adam_variants,
    averaging,
    core,
    curvature,
    distance,
    factored,
    modern,
    muon,
    sgd_variants,
    wrappers,
)
from .row import WIDTHS, Row


GROUPS = {
    group.__name__.rpartition(".")[2]: tuple(group.ROWS)
    for group in (
        adam_variants,
        averaging,
        core,
        curvature,
        distance,
        factored,
        modern,
        muon,
        sgd_variants,
        wrappers,
    )
}
ROWS = tuple(row for rows in GROUPS.values() for row in rows)


def rows_of(library):
    """The rows against this library."""
    return tuple(row for row in ROWS if row.library == library)


def key(row):
    """What the deviation of a row is kept under."""
    return f"{row.library}: {row.recipe} = {row.jopt}"


__all__ = ["GROUPS", "ROWS", "WIDTHS", "Row", "key", "rows_of"]
