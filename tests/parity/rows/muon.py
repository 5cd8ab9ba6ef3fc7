"""Orthogonalized momentum."""

from .row import Row


ROWS: tuple[Row, ...] = ()
