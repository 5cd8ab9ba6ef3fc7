"""Relatives of Adam."""

from .row import Row


ROWS: tuple[Row, ...] = ()
