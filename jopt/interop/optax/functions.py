"""What optax and jopt have in common: the functions are the same."""

from jopt.algorithms.dpsgd import (
    per_example_global_norm_clip as per_example_global_norm_clip,
)
from jopt.algorithms.dpsgd import (
    per_example_layer_norm_clip as per_example_layer_norm_clip,
)
from jopt.core.apply import apply_updates as apply_updates
from jopt.core.apply import incremental_update as incremental_update
from jopt.core.apply import periodic_update as periodic_update
