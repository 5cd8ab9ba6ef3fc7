"""Averages of the parameters."""

from .case import Case


ROWS: list[Case] = []
