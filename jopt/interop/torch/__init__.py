"""torch's optimizers by their own names; torch itself is not needed.

Optimizers with torch's arguments and numbers, including parameter groups, its clipping,
its schedulers in ``lr_scheduler``, and conversion between the state dicts of its
optimizers and jopt states.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
