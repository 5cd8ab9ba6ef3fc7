"""Second moments that take little memory."""

from .case import Case


ROWS: list[Case] = []
