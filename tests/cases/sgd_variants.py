"""Relatives of gradient descent."""

from .case import Case


ROWS: list[Case] = []
