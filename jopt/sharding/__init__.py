"""Sharding: where the state of an optimizer lives, on many devices.

`state_shardings` derives the sharding of every array of a state from the shardings of
the parameters; `zero1` splits it over the devices that share the parameters; `on_host`
keeps it in the host's memory.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
