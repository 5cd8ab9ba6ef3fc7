"""Orthogonalized momentum."""

from .case import Case


ROWS: list[Case] = []
