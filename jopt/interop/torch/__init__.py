"""torch by its own names; torch itself is not needed.

Optimizers with torch's arguments and numbers, parameter groups included, its schedulers
in ``lr_scheduler``, its clipping, and the state dicts of its optimizers as states, and
back.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
