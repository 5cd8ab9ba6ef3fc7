"""Every public name of jopt.logs."""

from .log import Log as Log, together as together
from .memory import Memory as Memory
from .text_files import CSV as CSV, JSONLines as JSONLines
from .services import TensorBoard as TensorBoard, Wandb as Wandb
