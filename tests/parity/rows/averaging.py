"""Averages of the parameters."""

from .row import Row


ROWS: tuple[Row, ...] = ()
