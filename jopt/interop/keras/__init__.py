"""Keras's optimizers by their own names; Keras itself is not needed.

Optimizers and schedules with Keras's arguments and numbers, `get` and `serialize` for
its configs, and conversion between the weights of its optimizers and jopt states.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
