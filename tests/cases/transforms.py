"""More transformations of a gradient."""

from .case import Case


ROWS: list[Case] = []
