"""Second moments that take little memory."""

from .row import Row


ROWS: tuple[Row, ...] = ()
