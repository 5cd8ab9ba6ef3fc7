"""torch by its own names; torch itself is not needed.

Optimizers with torch's arguments and numbers, parameter groups included, its schedulers
in ``lr_scheduler``, its clipping, and the state dicts of its optimizers as states, and
back.
"""

from jopt.interop.order import Permuted
from jopt.interop.torch import lr_scheduler
from jopt.interop.torch.adams import Adam, Adamax, AdamW, NAdam, RAdam, SparseAdam
from jopt.interop.torch.adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from jopt.interop.torch.clipping import clip_grad_norm_, clip_grad_value_
from jopt.interop.torch.optimizers import ASGD, SGD, Muon, Rprop
from jopt.interop.torch.state import load_state_dict, state_dict


__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Permuted",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "clip_grad_norm_",
    "clip_grad_value_",
    "load_state_dict",
    "lr_scheduler",
    "state_dict",
]
