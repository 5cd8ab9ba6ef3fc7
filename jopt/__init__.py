"""jopt: functional optimizers for JAX.

tx = jopt.adamw(learning_rate=1e-3)
state = tx.init(params)
updates, state = tx.update(grads, state, params)
params = jopt.apply_updates(params, updates)
"""

# The contract and the engine.
from jopt import checks as checks
from jopt import masks as masks
from jopt import schedules as schedules
from jopt import tree as tree

# Optimizers.
from jopt.algorithms.adadelta import adadelta as adadelta
from jopt.algorithms.adadelta import scale_by_adadelta as scale_by_adadelta
from jopt.algorithms.adagrad import adagrad as adagrad
from jopt.algorithms.adagrad import scale_by_rss as scale_by_rss
from jopt.algorithms.adam import adam as adam
from jopt.algorithms.adam import adamw as adamw
from jopt.algorithms.adam import amsgrad as amsgrad
from jopt.algorithms.adam import scale_by_adam as scale_by_adam
from jopt.algorithms.adam import scale_by_amsgrad as scale_by_amsgrad
from jopt.algorithms.adamax import adamax as adamax
from jopt.algorithms.adamax import scale_by_adamax as scale_by_adamax
from jopt.algorithms.ftrl import ftrl as ftrl
from jopt.algorithms.lion import lion as lion
from jopt.algorithms.lion import scale_by_lion as scale_by_lion
from jopt.algorithms.nadam import nadam as nadam
from jopt.algorithms.nadam import scale_by_nadam as scale_by_nadam
from jopt.algorithms.rmsprop import rmsprop as rmsprop
from jopt.algorithms.rmsprop import scale_by_rms as scale_by_rms
from jopt.algorithms.rmsprop import scale_by_stddev as scale_by_stddev
from jopt.algorithms.sgd import sgd as sgd
from jopt.apply import apply_updates as apply_updates
from jopt.apply import step as step
from jopt.base import GradientTransformation as GradientTransformation
from jopt.chain import chain as chain
from jopt.factory import Schedule as Schedule
from jopt.factory import StorageDtype as StorageDtype
from jopt.factory import schedule as schedule
from jopt.factory import transformation as transformation
from jopt.hyperparams import ScalarOrSchedule as ScalarOrSchedule
from jopt.hyperparams import Tunable as Tunable
from jopt.hyperparams import hyperparams as hyperparams
from jopt.hyperparams import inject_hyperparams as inject_hyperparams
from jopt.hyperparams import set_hyperparams as set_hyperparams
from jopt.hyperparams import tunable as tunable
from jopt.leafwise import full as full
from jopt.leafwise import leafwise as leafwise
from jopt.leafwise import zeros as zeros
from jopt.masks import Mask as Mask
from jopt.registry import from_config as from_config
from jopt.registry import get as get
from jopt.registry import names as names
from jopt.registry import to_config as to_config

# Transformations.
from jopt.transforms.clipping import adaptive_grad_clip as adaptive_grad_clip
from jopt.transforms.clipping import clip as clip
from jopt.transforms.clipping import clip_by_block_rms as clip_by_block_rms
from jopt.transforms.clipping import clip_by_global_norm as clip_by_global_norm
from jopt.transforms.clipping import clip_by_norm as clip_by_norm
from jopt.transforms.gradients import add_noise as add_noise
from jopt.transforms.gradients import centralize as centralize
from jopt.transforms.gradients import identity as identity
from jopt.transforms.gradients import scale_by_sign as scale_by_sign
from jopt.transforms.gradients import scale_by_trust_ratio as scale_by_trust_ratio
from jopt.transforms.gradients import stateless as stateless
from jopt.transforms.gradients import zero_nans as zero_nans
from jopt.transforms.learning_rate import scale as scale
from jopt.transforms.learning_rate import (
    scale_by_learning_rate as scale_by_learning_rate,
)
from jopt.transforms.learning_rate import scale_by_schedule as scale_by_schedule
from jopt.transforms.momentum import ema as ema
from jopt.transforms.momentum import trace as trace
from jopt.transforms.weight_decay import add_decayed_weights as add_decayed_weights

# Schedules.
from jopt.schedules.cosine import cosine_decay_schedule as cosine_decay_schedule
from jopt.schedules.cosine import cosine_decay_restarts as cosine_decay_restarts
from jopt.schedules.decay import constant_schedule as constant_schedule
from jopt.schedules.decay import linear_schedule as linear_schedule
from jopt.schedules.decay import polynomial_schedule as polynomial_schedule
from jopt.schedules.decay import exponential_decay as exponential_decay
from jopt.schedules.decay import inverse_time_decay as inverse_time_decay
from jopt.schedules.decay import inverse_sqrt_schedule as inverse_sqrt_schedule
from jopt.schedules.decay import piecewise_constant_schedule as piecewise_constant_schedule
from jopt.schedules.decay import piecewise_constant as piecewise_constant
from jopt.schedules.join import join_schedules as join_schedules
from jopt.schedules.onecycle import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from jopt.schedules.onecycle import linear_onecycle_schedule as linear_onecycle_schedule
from jopt.schedules.onecycle import cosine_onecycle_schedule as cosine_onecycle_schedule
from jopt.schedules.onecycle import onecycle_schedule as onecycle_schedule
from jopt.schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
from jopt.schedules.warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from jopt.schedules.warmup import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from jopt.schedules.warmup import warmup_cosine as warmup_cosine
from jopt.schedules.warmup import warmup_linear as warmup_linear
from jopt.schedules.warmup import warmup_stable_decay as warmup_stable_decay
from jopt.schedules.warmup import warmup_inverse_sqrt as warmup_inverse_sqrt
