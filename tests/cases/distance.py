"""Without a learning rate: it follows from the distance."""

from .case import Case


ROWS: list[Case] = []
