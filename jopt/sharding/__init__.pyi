"""The public names of ``jopt.sharding``."""

from .derivation import state_shardings as state_shardings
from .zero import zero1 as zero1
