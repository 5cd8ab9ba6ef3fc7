"""The public names of ``jopt.interop.torch``."""

from .optimizers import ASGD as ASGD, SGD as SGD, Muon as Muon, Rprop as Rprop
from .adaptive import (
    Adadelta as Adadelta,
    Adafactor as Adafactor,
    Adagrad as Adagrad,
    RMSprop as RMSprop,
)
from .adams import (
    Adam as Adam,
    AdamW as AdamW,
    Adamax as Adamax,
    NAdam as NAdam,
    RAdam as RAdam,
    SparseAdam as SparseAdam,
)
from .lbfgs import LBFGS as LBFGS
from .state import Permuted as Permuted
from .clipping import (
    clip_grad_norm_ as clip_grad_norm_,
    clip_grad_value_ as clip_grad_value_,
)
from .state import load_state_dict as load_state_dict, state_dict as state_dict
from . import lr_scheduler as lr_scheduler
