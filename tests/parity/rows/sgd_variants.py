"""Relatives of gradient descent."""

from .row import Row


ROWS: tuple[Row, ...] = ()
