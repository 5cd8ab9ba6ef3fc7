"""The public names of ``jopt.sharding``."""

from .derivation import state_shardings as state_shardings
