"""The public names of ``jopt.sharding``."""

from .derivation import state_shardings as state_shardings
from .zero import zero1 as zero1
from .host import (
    fetched as fetched,
    on_host as on_host,
    put_back as put_back,
    step_layers as step_layers,
)
