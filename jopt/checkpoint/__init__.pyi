"""The public names of ``jopt.checkpoint``."""

from .saving import save as save, restore as restore
from .contents import Restored as Restored
from .manager import Checkpointer as Checkpointer
