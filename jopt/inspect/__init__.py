"""What people look at: an optimizer described, its rate found, optimizers compared."""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
