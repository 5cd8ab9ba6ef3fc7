"""jopt: functional optimizers for JAX.

tx = jopt.adamw(learning_rate=1e-3)
state = tx.init(params)
updates, state = tx.update(grads, state, params)
params = jopt.apply_updates(params, updates)
"""

from jopt import checkpoint, projections, tree
from jopt.algorithms.acprop import acprop, scale_by_acprop
from jopt.algorithms.adabelief import adabelief, scale_by_belief
from jopt.algorithms.adadelta import adadelta, scale_by_adadelta
from jopt.algorithms.adafactor import adafactor, scale_by_relative_step
from jopt.algorithms.adagrad import adagrad, scale_by_rss
from jopt.algorithms.adam import adam, adamw, scale_by_adam
from jopt.algorithms.adam_atan2 import adam_atan2, scale_by_adam_atan2
from jopt.algorithms.adam_mini import adam_mini, scale_by_adam_mini
from jopt.algorithms.adamax import adamax, adamaxw, scale_by_adamax
from jopt.algorithms.adan import adan, scale_by_adan
from jopt.algorithms.ademamix import ademamix, scale_by_ademamix
from jopt.algorithms.adopt import adopt, scale_by_adopt, skip_first
from jopt.algorithms.amsgrad import amsgrad, scale_by_amsgrad
from jopt.algorithms.asgd import asgd
from jopt.algorithms.came import came, scale_by_came
from jopt.algorithms.cocob import cocob, scale_by_cocob
from jopt.algorithms.dadapt import dadapt_adamw
from jopt.algorithms.dog import dog, scale_by_dog
from jopt.algorithms.dowg import dowg, scale_by_dowg
from jopt.algorithms.dpsgd import (
    clipped_grad_sum,
    differentially_private_aggregate,
    dpsgd,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
)
from jopt.algorithms.factored_rms import scale_by_factored_rms
from jopt.algorithms.fromage import fromage
from jopt.algorithms.ftrl import ftrl
from jopt.algorithms.galore import galore, scale_by_galore
from jopt.algorithms.grams import grams
from jopt.algorithms.lamb import lamb, scale_by_decayed_trust_ratio
from jopt.algorithms.laprop import laprop, scale_by_laprop
from jopt.algorithms.lars import lars, scale_by_lars
from jopt.algorithms.ldog import ldog, scale_by_distance_over_gradients
from jopt.algorithms.lion import lion, scale_by_lion
from jopt.algorithms.looksam import looksam
from jopt.algorithms.madgrad import madgrad, scale_by_madgrad
from jopt.algorithms.mars import mars_adamw, scale_by_mars
from jopt.algorithms.mars_lion import mars_lion, scale_by_mars_lion
from jopt.algorithms.mechanic import mechanize
from jopt.algorithms.momo import momo, momo_adam
from jopt.algorithms.muon import muon, scale_by_muon
from jopt.algorithms.nadam import nadam, nadamw, scale_by_nadam
from jopt.algorithms.normuon import normalize_neurons
from jopt.algorithms.novograd import novograd, scale_by_novograd
from jopt.algorithms.optimistic import (
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
    scale_by_optimistic_gradient,
)
from jopt.algorithms.polyak import polyak_sgd, scale_by_polyak
from jopt.algorithms.prodigy import prodigy
from jopt.algorithms.radam import radam, scale_by_radam
from jopt.algorithms.rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from jopt.algorithms.rprop import rprop, scale_by_rprop
from jopt.algorithms.sam import asam, sam
from jopt.algorithms.schedule_free import (
    scale_by_schedule_free,
    schedule_free,
    schedule_free_adamw,
    schedule_free_sgd,
)
from jopt.algorithms.sgd import noisy_sgd, sgd
from jopt.algorithms.sign import sign_sgd, signum
from jopt.algorithms.simplified_ademamix import (
    scale_by_simplified_ademamix,
    simplified_ademamix,
)
from jopt.algorithms.sm3 import scale_by_sm3, sm3
from jopt.algorithms.sophia import (
    gauss_newton_bartlett,
    hutchinson_estimator_diag_hessian,
    scale_by_sophia,
    sophia,
)
from jopt.algorithms.stable_adamw import scale_by_stable_adamw, stable_adamw
from jopt.algorithms.yogi import scale_by_yogi, yogi
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
from jopt.metrics import metrics, monitor
from jopt.micro_batch import micro_batch
from jopt.migration import Cast, Drop, Rename, Reset
from jopt.registry import from_config, get, names, to_config
from jopt.resetting import reset, set_counts
from jopt.rules import glob, is_bias_or_norm, ndim_at_least, optional, rules
from jopt.schedules.averaging import ema_warmup_schedule, swa_schedule
from jopt.schedules.cosine import (
    cosine_decay_restarts,
    cosine_decay_schedule,
    sgdr_schedule,
)
from jopt.schedules.cyclic import cyclic_schedule
from jopt.schedules.decay import (
    constant_schedule,
    exponential_decay,
    linear_schedule,
    polynomial_schedule,
    rex_schedule,
)
from jopt.schedules.inverse import (
    inverse_sqrt_schedule,
    inverse_time_decay,
    power_schedule,
)
from jopt.schedules.join import join_schedules
from jopt.schedules.linear_cosine import linear_cosine_decay, noisy_linear_cosine_decay
from jopt.schedules.micro_steps import epoch_schedule, micro_step_schedule
from jopt.schedules.onecycle import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    onecycle_schedule,
    piecewise_interpolate_schedule,
)
from jopt.schedules.piecewise import piecewise_constant, piecewise_constant_schedule
from jopt.schedules.product import multiplicative_schedule, multiply_schedules
from jopt.schedules.stable import warmup_stable_decay
from jopt.schedules.warmup import (
    warmup_constant_schedule,
    warmup_cosine,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_inverse_sqrt,
    warmup_linear,
)
from jopt.sparse import densify, sparse_value_and_grad
from jopt.state_dict import load_state_dict, schema, state_dict
from jopt.transforms.aggregate import aggregate
from jopt.transforms.cautious import cautious, gradient_sign
from jopt.transforms.clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_norm,
)
from jopt.transforms.constraints import keep_params_nonnegative
from jopt.transforms.gradients import (
    centralize,
    freeze,
    identity,
    scale_by_sign,
    scale_by_trust_ratio,
    set_to_zero,
    stateless,
    stateless_with_tree_map,
    zero_nans,
)
from jopt.transforms.grokfast import grokfast_ema, grokfast_ma
from jopt.transforms.growth import limit_norm_growth
from jopt.transforms.learning_rate import (
    scale,
    scale_by_group,
    scale_by_learning_rate,
    scale_by_schedule,
)
from jopt.transforms.mars_correction import mars_correction
from jopt.transforms.momentum import apply_every, ema, trace
from jopt.transforms.noise import add_noise
from jopt.transforms.norms import (
    normalize,
    normalize_by_update_norm,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
)
from jopt.transforms.plateau import reduce_on_plateau
from jopt.transforms.proximal import proximal_decay
from jopt.transforms.weight_decay import (
    add_decayed_weights,
    cautious_weight_decay,
    corrected_weight_decay,
    independent_weight_decay,
)
from jopt.transforms.zclip import zclip
from jopt.tree.rows import RowSparse
from jopt.wrappers.accumulation import accumulate
from jopt.wrappers.averaging import params_ema, params_mean
from jopt.wrappers.catching_up import catch_up, caught_up
from jopt.wrappers.conditionally import conditionally_mask, conditionally_transform
from jopt.wrappers.guards import apply_if_finite, skip_nonfinite
from jopt.wrappers.lawa import params_lawa
from jopt.wrappers.lookahead import lookahead
from jopt.wrappers.loss_scale import dynamic_loss_scale, scale_loss
from jopt.wrappers.masking import (
    masked,
    multi_transform,
    partition,
    selective_transform,
)
from jopt.wrappers.micro_steps import skip_large_updates, skip_not_finite
from jopt.wrappers.multi_steps import (
    MultiSteps,
    accumulate_grads,
    emit,
    has_updated,
)
from jopt.wrappers.spikes import skip_spikes


__version__ = "0.1.0"

# fmt: off
__all__ = [  # noqa: RUF022, by subject
    # The contract; which leaves; metrics.
    "GradientTransformation", "chain", "apply_updates", "step", "transformation",
    "schedule", "Schedule", "StorageDtype", "leafwise", "zeros", "full", "copied",
    "Mask", "eval_params", "rules", "optional", "glob", "ndim_at_least",
    "is_bias_or_norm", "monitor", "metrics",
    # Hyperparameters.
    "ScalarOrSchedule", "Tunable", "tunable", "hyperparams", "set_hyperparams",
    "inject_hyperparams",
    # By name and as data.
    "get", "names", "to_config", "from_config",
    # Checkpoints.
    "state_dict", "schema", "load_state_dict", "Rename", "Drop", "Reset", "Cast",
    "reset", "set_counts",
    # Optimizers.
    "sgd", "noisy_sgd", "sign_sgd", "signum", "rprop", "scale_by_rprop", "asgd",
    "optimistic_gradient_descent", "scale_by_optimistic_gradient", "optimistic_adam",
    "optimistic_adam_v2", "polyak_sgd", "scale_by_polyak", "momo", "momo_adam",
    "fromage", "lars", "scale_by_lars", "lamb", "scale_by_decayed_trust_ratio",
    "novograd", "scale_by_novograd", "madgrad", "scale_by_madgrad", "adam", "adamw",
    "scale_by_adam", "nadam", "nadamw", "scale_by_nadam", "amsgrad", "scale_by_amsgrad",
    "adamax", "adamaxw", "scale_by_adamax", "radam", "scale_by_radam", "yogi",
    "scale_by_yogi", "adabelief", "scale_by_belief", "acprop", "scale_by_acprop",
    "laprop", "scale_by_laprop", "adan", "scale_by_adan", "adopt", "scale_by_adopt",
    "ademamix", "scale_by_ademamix", "simplified_ademamix",
    "scale_by_simplified_ademamix", "rmsprop", "scale_by_rms", "scale_by_stddev",
    "adagrad", "scale_by_rss", "adadelta", "scale_by_adadelta", "adafactor",
    "scale_by_factored_rms", "scale_by_relative_step", "adam_mini",
    "scale_by_adam_mini", "came", "scale_by_came", "sm3", "scale_by_sm3", "galore",
    "scale_by_galore", "ftrl", "lion", "scale_by_lion", "dog", "scale_by_dog", "ldog",
    "scale_by_distance_over_gradients", "dowg", "scale_by_dowg", "dadapt_adamw",
    "prodigy", "cocob", "scale_by_cocob", "mechanize", "schedule_free",
    "schedule_free_adamw", "schedule_free_sgd", "scale_by_schedule_free", "grams",
    "stable_adamw", "scale_by_stable_adamw", "adam_atan2", "scale_by_adam_atan2",
    "mars_adamw", "scale_by_mars", "mars_lion", "scale_by_mars_lion", "muon",
    "scale_by_muon", "normalize_neurons",
    # Transformations; functions of value and gradient.
    "scale", "scale_by_learning_rate", "scale_by_group", "scale_by_schedule",
    "add_decayed_weights", "proximal_decay", "skip_first", "cautious_weight_decay",
    "independent_weight_decay", "corrected_weight_decay", "trace", "ema", "apply_every",
    "clip", "clip_by_global_norm", "clip_by_norm", "clip_by_block_rms",
    "adaptive_grad_clip", "zclip", "limit_norm_growth", "cautious", "gradient_sign",
    "mars_correction", "grokfast_ema", "grokfast_ma", "identity", "stateless",
    "stateless_with_tree_map", "centralize", "set_to_zero", "freeze", "zero_nans",
    "scale_by_sign", "scale_by_trust_ratio", "normalize", "normalize_by_update_norm",
    "scale_by_param_block_norm", "scale_by_param_block_rms", "keep_params_nonnegative",
    "add_noise", "reduce_on_plateau", "differentially_private_aggregate", "dpsgd",
    "per_example_global_norm_clip", "per_example_layer_norm_clip", "clipped_grad_sum",
    "aggregate", "gauss_newton_bartlett", "hutchinson_estimator_diag_hessian",
    "scale_by_sophia", "sophia", "sam", "asam", "looksam", "micro_batch",
    # Wrappers; row-sparse leaves.
    "masked", "partition", "multi_transform", "selective_transform", "accumulate",
    "accumulate_grads", "emit", "has_updated", "MultiSteps", "skip_not_finite",
    "skip_large_updates", "params_ema", "params_mean", "params_lawa", "lookahead",
    "skip_nonfinite", "apply_if_finite", "skip_spikes", "dynamic_loss_scale",
    "scale_loss", "conditionally_mask", "conditionally_transform", "RowSparse",
    "sparse_value_and_grad", "densify", "catch_up", "caught_up",
    # Schedules.
    "constant_schedule", "linear_schedule", "polynomial_schedule", "rex_schedule",
    "exponential_decay", "inverse_time_decay", "inverse_sqrt_schedule",
    "power_schedule", "piecewise_constant_schedule", "piecewise_constant",
    "cosine_decay_schedule", "cosine_decay_restarts", "sgdr_schedule",
    "linear_cosine_decay", "noisy_linear_cosine_decay", "warmup_constant_schedule",
    "warmup_cosine_decay_schedule", "warmup_exponential_decay_schedule",
    "warmup_cosine", "warmup_linear", "warmup_stable_decay", "warmup_inverse_sqrt",
    "cosine_onecycle_schedule", "linear_onecycle_schedule", "onecycle_schedule",
    "piecewise_interpolate_schedule", "cyclic_schedule", "swa_schedule",
    "ema_warmup_schedule", "join_schedules", "multiply_schedules",
    "multiplicative_schedule", "epoch_schedule", "micro_step_schedule",
    # PyTree arithmetic.
    "tree", "projections", "checkpoint",
]
# fmt: on
