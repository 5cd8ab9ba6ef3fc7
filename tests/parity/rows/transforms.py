"""More transformations of a gradient."""

from .row import Row


ROWS: tuple[Row, ...] = ()
