"""Curvature and privacy."""

from .case import Case


ROWS: list[Case] = []
