"""Sharding: where the state of an optimizer lives, on many devices.

`state_shardings` derives the sharding of every array of a state from the shardings of
the parameters; `zero1` shards a state over the devices that share the parameters;
`moved` brings a state from the host's memory to the devices, and back.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
