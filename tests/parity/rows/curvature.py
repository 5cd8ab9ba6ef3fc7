"""Curvature and privacy."""

from .row import Row


ROWS: tuple[Row, ...] = ()
