"""Without a learning rate: it follows from the distance."""

from .row import Row


ROWS: tuple[Row, ...] = ()
