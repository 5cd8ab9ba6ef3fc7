"""Small modern gains."""

from .case import Case


ROWS: list[Case] = []
