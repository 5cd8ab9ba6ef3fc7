"""Other libraries, a door each; what a door needs is imported when it is used."""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
