"""The public names of ``jopt.interop.optax``."""

from .wrap import as_optax as as_optax, from_optax as from_optax
from .states import (
    from_optax_state as from_optax_state,
    to_optax_state as to_optax_state,
)
