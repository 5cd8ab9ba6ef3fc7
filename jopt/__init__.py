"""jopt: functional optimizers for JAX.

tx = jopt.adamw(learning_rate=1e-3)
state = tx.init(params)
updates, state = tx.update(grads, state, params)
params = jopt.apply_updates(params, updates)
"""

from jopt import tree
from jopt.algorithms.adadelta import adadelta, scale_by_adadelta
from jopt.algorithms.adagrad import adagrad, scale_by_rss
from jopt.algorithms.adam import adam, adamw, scale_by_adam
from jopt.algorithms.adamax import adamax, scale_by_adamax
from jopt.algorithms.amsgrad import amsgrad, scale_by_amsgrad
from jopt.algorithms.ftrl import ftrl
from jopt.algorithms.lion import lion, scale_by_lion
from jopt.algorithms.nadam import nadam, scale_by_nadam
from jopt.algorithms.rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from jopt.algorithms.sgd import sgd
from jopt.apply import apply_updates, step
from jopt.base import GradientTransformation
from jopt.chain import chain
from jopt.evaluation import eval_params
from jopt.factory import Schedule, StorageDtype, schedule, transformation
from jopt.hyperparams import (
    ScalarOrSchedule,
    Tunable,
    hyperparams,
    inject_hyperparams,
    set_hyperparams,
    tunable,
)
from jopt.leafwise import copied, full, leafwise, zeros
from jopt.masks import Mask
from jopt.registry import from_config, get, names, to_config
from jopt.schedules.cosine import cosine_decay_restarts, cosine_decay_schedule
from jopt.schedules.decay import (
    constant_schedule,
    exponential_decay,
    inverse_sqrt_schedule,
    inverse_time_decay,
    linear_schedule,
    polynomial_schedule,
)
from jopt.schedules.join import join_schedules
from jopt.schedules.onecycle import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    onecycle_schedule,
    piecewise_interpolate_schedule,
)
from jopt.schedules.piecewise import piecewise_constant, piecewise_constant_schedule
from jopt.schedules.warmup import (
    warmup_constant_schedule,
    warmup_cosine,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_inverse_sqrt,
    warmup_linear,
    warmup_stable_decay,
)
from jopt.transforms.clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_norm,
)
from jopt.transforms.gradients import (
    add_noise,
    centralize,
    identity,
    scale_by_sign,
    scale_by_trust_ratio,
    stateless,
    zero_nans,
)
from jopt.transforms.learning_rate import (
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from jopt.transforms.momentum import ema, trace
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.wrappers.masking import masked, partition


__version__ = "0.1.0"

__all__ = [  # noqa: RUF022, by subject
    # The contract.
    "GradientTransformation",
    "chain",
    "apply_updates",
    "step",
    "transformation",
    "schedule",
    "Schedule",
    "StorageDtype",
    "leafwise",
    "zeros",
    "full",
    "copied",
    "Mask",
    "eval_params",
    # Hyperparameters.
    "ScalarOrSchedule",
    "Tunable",
    "tunable",
    "hyperparams",
    "set_hyperparams",
    "inject_hyperparams",
    # By name and as data.
    "get",
    "names",
    "to_config",
    "from_config",
    # Optimizers.
    "sgd",
    "adam",
    "adamw",
    "scale_by_adam",
    "nadam",
    "scale_by_nadam",
    "amsgrad",
    "scale_by_amsgrad",
    "adamax",
    "scale_by_adamax",
    "rmsprop",
    "scale_by_rms",
    "scale_by_stddev",
    "adagrad",
    "scale_by_rss",
    "adadelta",
    "scale_by_adadelta",
    "ftrl",
    "lion",
    "scale_by_lion",
    # Transformations.
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "add_decayed_weights",
    "trace",
    "ema",
    "clip",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_block_rms",
    "adaptive_grad_clip",
    "identity",
    "stateless",
    "centralize",
    "zero_nans",
    "scale_by_sign",
    "scale_by_trust_ratio",
    "add_noise",
    # Wrappers.
    "masked",
    "partition",
    # Schedules.
    "constant_schedule",
    "linear_schedule",
    "polynomial_schedule",
    "exponential_decay",
    "inverse_time_decay",
    "inverse_sqrt_schedule",
    "piecewise_constant_schedule",
    "piecewise_constant",
    "cosine_decay_schedule",
    "cosine_decay_restarts",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_cosine",
    "warmup_linear",
    "warmup_stable_decay",
    "warmup_inverse_sqrt",
    "cosine_onecycle_schedule",
    "linear_onecycle_schedule",
    "onecycle_schedule",
    "piecewise_interpolate_schedule",
    "join_schedules",
    # PyTree arithmetic.
    "tree",
]
