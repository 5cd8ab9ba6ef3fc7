"""Small modern gains."""

from .row import Row


ROWS: tuple[Row, ...] = ()
