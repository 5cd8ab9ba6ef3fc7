"""The public names of ``jopt.interop.flax``."""

from .train_state import TrainState as TrainState
from .optimizer import Optimizer as Optimizer
