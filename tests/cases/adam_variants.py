"""Relatives of Adam."""

from .case import Case


ROWS: list[Case] = []
