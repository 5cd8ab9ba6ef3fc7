"""Doors to other libraries, each imported when it is first used."""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
