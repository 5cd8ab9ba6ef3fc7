"""Every public name of jopt, by subject; loaded when it is used.

An optimizer becomes public by its line here.
"""

# The contract.
from .core.transformation import (
    GradientTransformation as GradientTransformation,
    InitFn as InitFn,
    UpdateFn as UpdateFn,
    OptState as OptState,
    Params as Params,
    Updates as Updates,
)
from .core.chain import chain as chain
from .core.apply import (
    apply_updates as apply_updates,
    incremental_update as incremental_update,
    periodic_update as periodic_update,
)
from .core.fused import step as step
from .native.switch import native_kernels as native_kernels
from .core.factory import (
    transformation as transformation,
    schedule as schedule,
    affine_schedule as affine_schedule,
    Schedule as Schedule,
    StorageDtype as StorageDtype,
)
from .core.leafwise import (
    leafwise as leafwise,
    zeros as zeros,
    full as full,
    copied as copied,
)
from .core.eval_params import eval_params as eval_params

# Which leaves.
from .core.masks import Mask as Mask
from .core.rules import (
    rules as rules,
    optional as optional,
    glob as glob,
    ndim_at_least as ndim_at_least,
    is_bias_or_norm as is_bias_or_norm,
    not_bias_or_norm as not_bias_or_norm,
    layer_decay as layer_decay,
)

# Numbers that change.
from .values.numbers import (
    ScalarOrSchedule as ScalarOrSchedule,
    Tunable as Tunable,
    tunable as tunable,
    inject_hyperparams as inject_hyperparams,
)
from .state.hyperparams import (
    hyperparams as hyperparams,
    set_hyperparams as set_hyperparams,
)

# By name, and as data.
from .values.registry import (
    config_function as config_function,
    get as get,
    names as names,
)
from .values.config import to_config as to_config, from_config as from_config

# Optimizers: SGD and its kin.
from .algorithms.sgd import sgd as sgd, noisy_sgd as noisy_sgd
from .algorithms.sign import sign_sgd as sign_sgd, signum as signum
from .algorithms.lbfgs import lbfgs as lbfgs, scale_by_lbfgs as scale_by_lbfgs
from .algorithms.lion import lion as lion, scale_by_lion as scale_by_lion
from .algorithms.rprop import rprop as rprop, scale_by_rprop as scale_by_rprop
from .algorithms.asgd import asgd as asgd
from .algorithms.optimistic import (
    optimistic_gradient_descent as optimistic_gradient_descent,
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
    optimistic_adam as optimistic_adam,
    optimistic_adam_v2 as optimistic_adam_v2,
)
from .algorithms.polyak import (
    polyak_sgd as polyak_sgd,
    scale_by_polyak as scale_by_polyak,
)
from .algorithms.momo import momo as momo, momo_adam as momo_adam
from .algorithms.fromage import fromage as fromage
from .algorithms.lars import lars as lars, scale_by_lars as scale_by_lars
from .algorithms.madgrad import madgrad as madgrad, scale_by_madgrad as scale_by_madgrad

# Optimizers: Adam and its kin.
from .algorithms.adam import (
    adam as adam,
    adamw as adamw,
    scale_by_adam as scale_by_adam,
)
from .algorithms.nadam import (
    nadam as nadam,
    nadamw as nadamw,
    scale_by_nadam as scale_by_nadam,
)
from .algorithms.amsgrad import amsgrad as amsgrad, scale_by_amsgrad as scale_by_amsgrad
from .algorithms.adamax import (
    adamax as adamax,
    adamaxw as adamaxw,
    scale_by_adamax as scale_by_adamax,
)
from .algorithms.radam import radam as radam, scale_by_radam as scale_by_radam
from .algorithms.yogi import yogi as yogi, scale_by_yogi as scale_by_yogi
from .algorithms.adabelief import (
    adabelief as adabelief,
    scale_by_belief as scale_by_belief,
)
from .algorithms.acprop import acprop as acprop, scale_by_acprop as scale_by_acprop
from .algorithms.laprop import laprop as laprop, scale_by_laprop as scale_by_laprop
from .algorithms.adan import adan as adan, scale_by_adan as scale_by_adan
from .algorithms.adopt import (
    adopt as adopt,
    scale_by_adopt as scale_by_adopt,
    skip_first as skip_first,
)
from .algorithms.ademamix import (
    ademamix as ademamix,
    scale_by_ademamix as scale_by_ademamix,
)
from .algorithms.simplified_ademamix import (
    simplified_ademamix as simplified_ademamix,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
)
from .algorithms.lamb import (
    lamb as lamb,
    scale_by_decayed_trust_ratio as scale_by_decayed_trust_ratio,
)
from .algorithms.novograd import (
    novograd as novograd,
    scale_by_novograd as scale_by_novograd,
)
from .algorithms.stable_adamw import (
    stable_adamw as stable_adamw,
    scale_by_stable_adamw as scale_by_stable_adamw,
)
from .algorithms.adam_atan2 import (
    adam_atan2 as adam_atan2,
    scale_by_adam_atan2 as scale_by_adam_atan2,
)
from .algorithms.grams import grams as grams
from .algorithms.mars import mars_adamw as mars_adamw, scale_by_mars as scale_by_mars
from .algorithms.mars_lion import (
    mars_lion as mars_lion,
    scale_by_mars_lion as scale_by_mars_lion,
)

# Optimizers: adaptive rates without Adam.
from .algorithms.rmsprop import (
    rmsprop as rmsprop,
    scale_by_rms as scale_by_rms,
    scale_by_stddev as scale_by_stddev,
)
from .algorithms.adagrad import adagrad as adagrad, scale_by_rss as scale_by_rss
from .algorithms.adadelta import (
    adadelta as adadelta,
    scale_by_adadelta as scale_by_adadelta,
)
from .algorithms.ftrl import ftrl as ftrl

# Optimizers: little memory.
from .algorithms.adafactor import (
    adafactor as adafactor,
    scale_by_relative_step as scale_by_relative_step,
)
from .algorithms.factored_rms import scale_by_factored_rms as scale_by_factored_rms
from .algorithms.adam_mini import (
    adam_mini as adam_mini,
    scale_by_adam_mini as scale_by_adam_mini,
)
from .algorithms.came import came as came, scale_by_came as scale_by_came
from .algorithms.sm3 import sm3 as sm3, scale_by_sm3 as scale_by_sm3
from .algorithms.galore import galore as galore, scale_by_galore as scale_by_galore

# Optimizers: matrices and curvature.
from .algorithms.soap import (
    kl_soap as kl_soap,
    scale_by_soap as scale_by_soap,
    soap as soap,
)
from .algorithms.shampoo import scale_by_shampoo as scale_by_shampoo, shampoo as shampoo
from .algorithms.kl import (
    kl_shampoo as kl_shampoo,
    scale_by_kl_shampoo as scale_by_kl_shampoo,
)
from .algorithms.splus import scale_by_splus as scale_by_splus, splus as splus
from .algorithms.muon import (
    muon as muon,
    scale_by_muon as scale_by_muon,
    scale_by_polar as scale_by_polar,
)
from .algorithms.muon_squared import (
    muon_squared as muon_squared,
    scale_by_muon_squared as scale_by_muon_squared,
)
from .algorithms.adamuon import adamuon as adamuon
from .algorithms.qk_clip import qk_clip as qk_clip
from .algorithms.scion import scion as scion, scale_by_lmo as scale_by_lmo
from .algorithms.dion2 import dion2 as dion2, scale_by_dion2 as scale_by_dion2
from .algorithms.normuon import (
    normalize_neurons as normalize_neurons,
    normuon as normuon,
)
from .algorithms.hyperball import (
    adam_h as adam_h,
    hyperball as hyperball,
    muon_h as muon_h,
    scale_by_hyperball as scale_by_hyperball,
    soap_h as soap_h,
)
from .algorithms.norm_control import (
    match_rms as match_rms,
    norm_floor as norm_floor,
    radial_brake as radial_brake,
    relative_norm as relative_norm,
)
from .algorithms.psgd import psgd_kron as psgd_kron, scale_by_kron as scale_by_kron
from .algorithms.sophia import (
    gauss_newton_bartlett as gauss_newton_bartlett,
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
    scale_by_sophia as scale_by_sophia,
    sophia as sophia,
    sophia_g as sophia_g,
)

# Optimizers: without a learning rate or a schedule.
from .algorithms.dog import dog as dog, scale_by_dog as scale_by_dog
from .algorithms.ldog import (
    ldog as ldog,
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
)
from .algorithms.dowg import dowg as dowg, scale_by_dowg as scale_by_dowg
from .algorithms.dadapt import dadapt_adamw as dadapt_adamw
from .algorithms.prodigy import prodigy as prodigy
from .algorithms.cocob import cocob as cocob, scale_by_cocob as scale_by_cocob
from .algorithms.mechanic import mechanize as mechanize
from .algorithms.schedule_free import (
    schedule_free as schedule_free,
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_sgd as schedule_free_sgd,
    scale_by_schedule_free as scale_by_schedule_free,
)

# Optimizers: privacy.
from .algorithms.dpsgd import (
    differentially_private_aggregate as differentially_private_aggregate,
    dpsgd as dpsgd,
    per_example_global_norm_clip as per_example_global_norm_clip,
    per_example_layer_norm_clip as per_example_layer_norm_clip,
    clipped_grad_sum as clipped_grad_sum,
)

# Transformations: learning rate and weight decay.
from .transforms.learning_rate import (
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_group as scale_by_group,
    scale_by_schedule as scale_by_schedule,
)
from .transforms.plateau import reduce_on_plateau as reduce_on_plateau
from .transforms.weight_decay import (
    add_decayed_weights as add_decayed_weights,
    cautious_weight_decay as cautious_weight_decay,
    independent_weight_decay as independent_weight_decay,
    step_then_decay as step_then_decay,
    corrected_weight_decay as corrected_weight_decay,
)
from .transforms.proximal import proximal_decay as proximal_decay

# Transformations: momentum and averages.
from .transforms.momentum import trace as trace, ema as ema, apply_every as apply_every
from .transforms.grokfast import (
    grokfast_ema as grokfast_ema,
    grokfast_ma as grokfast_ma,
)
from .transforms.variance_reduction import mars_correction as mars_correction

# Transformations: clipping and norms.
from .transforms.clipping import (
    clip as clip,
    clip_by_global_norm as clip_by_global_norm,
    clip_by_norm as clip_by_norm,
    clip_by_block_rms as clip_by_block_rms,
    adaptive_grad_clip as adaptive_grad_clip,
)
from .transforms.z_scores import zclip as zclip
from .transforms.growth import limit_norm_growth as limit_norm_growth
from .transforms.norms import (
    normalize as normalize,
    normalize_by_update_norm as normalize_by_update_norm,
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
)

# Transformations: other.
from .transforms.gradients import (
    identity as identity,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
    centralize as centralize,
    set_to_zero as set_to_zero,
    freeze as freeze,
    zero_nans as zero_nans,
    scale_by_sign as scale_by_sign,
    scale_by_trust_ratio as scale_by_trust_ratio,
)
from .transforms.agreement import cautious as cautious, gradient_sign as gradient_sign
from .transforms.constraints import (
    keep_params_nonnegative as keep_params_nonnegative,
    project as project,
)
from .transforms.noise import add_noise as add_noise
from .transforms.per_example import aggregate as aggregate
from .transforms.dense_rows import densify as densify

# Solvers: until a function is at its minimum.
from .solvers.minimization import minimize as minimize
from .solvers.least_squares import (
    levenberg_marquardt as levenberg_marquardt,
    gauss_newton as gauss_newton,
)
from .solvers.results import MinimizeResult as MinimizeResult

# Functions of a value-and-gradient function.
from .gradients.sam import sam as sam, asam as asam
from .gradients.looksam import looksam as looksam
from .gradients.micro_batch import micro_batch as micro_batch
from .gradients.row_sparse import sparse_value_and_grad as sparse_value_and_grad
from .gradients.scaled import scale_gradient as scale_gradient
from .gradients.searched_steps import (
    scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch as scale_by_zoom_linesearch,
    value_and_grad_from_state as value_and_grad_from_state,
)
from .gradients.second_order import (
    hvp as hvp,
    hessian_diag as hessian_diag,
    fisher_diag as fisher_diag,
)
from .gradients.perturbations import (
    make_perturbed_fun as make_perturbed_fun,
    Normal as Normal,
    Gumbel as Gumbel,
)

# Wrappers.
from .wrappers.masking import (
    masked as masked,
    partition as partition,
    multi_transform as multi_transform,
    selective_transform as selective_transform,
)
from .wrappers.accumulation import accumulate as accumulate
from .wrappers.multi_steps import (
    accumulate_grads as accumulate_grads,
    emit as emit,
    has_updated as has_updated,
    MultiSteps as MultiSteps,
)
from .wrappers.accumulation_steps import (
    skip_not_finite as skip_not_finite,
    skip_large_updates as skip_large_updates,
)
from .wrappers.averaging import params_ema as params_ema, params_mean as params_mean
from .wrappers.lawa import params_lawa as params_lawa
from .wrappers.lookahead import lookahead as lookahead
from .wrappers.ema_nesterov import ema_nesterov as ema_nesterov
from .wrappers.guards import (
    skip_nonfinite as skip_nonfinite,
    apply_if_finite as apply_if_finite,
)
from .wrappers.spikes import skip_spikes as skip_spikes
from .wrappers.narrow_params import (
    bf16_params as bf16_params,
    wide_params as wide_params,
)
from .wrappers.loss_scale import (
    dynamic_loss_scale as dynamic_loss_scale,
    scale_loss as scale_loss,
)
from .wrappers.conditionally import (
    conditionally_mask as conditionally_mask,
    conditionally_transform as conditionally_transform,
)
from .wrappers.complex_leaves import (
    split_real_and_imaginary as split_real_and_imaginary,
)
from .wrappers.monitor import monitor as monitor
from .wrappers.catch_up import catch_up as catch_up, caught_up as caught_up

# Schedules.
from .schedules.decay import (
    constant_schedule as constant_schedule,
    linear_schedule as linear_schedule,
    polynomial_schedule as polynomial_schedule,
    rex_schedule as rex_schedule,
    exponential_decay as exponential_decay,
)
from .schedules.inverse import (
    inverse_time_decay as inverse_time_decay,
    inverse_sqrt_schedule as inverse_sqrt_schedule,
    power_schedule as power_schedule,
)
from .schedules.piecewise import (
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_constant as piecewise_constant,
)
from .schedules.cosine import (
    cosine_decay_schedule as cosine_decay_schedule,
    cosine_decay_restarts as cosine_decay_restarts,
    sgdr_schedule as sgdr_schedule,
)
from .schedules.linear_cosine import (
    linear_cosine_decay as linear_cosine_decay,
    noisy_linear_cosine_decay as noisy_linear_cosine_decay,
)
from .schedules.warmup import (
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    warmup_cosine as warmup_cosine,
    warmup_linear as warmup_linear,
    warmup_inverse_sqrt as warmup_inverse_sqrt,
)
from .schedules.stable import warmup_stable_decay as warmup_stable_decay
from .schedules.onecycle import (
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    linear_onecycle_schedule as linear_onecycle_schedule,
    onecycle_schedule as onecycle_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
)
from .schedules.cyclic import cyclic_schedule as cyclic_schedule
from .schedules.averaging import (
    swa_schedule as swa_schedule,
    ema_warmup_schedule as ema_warmup_schedule,
)
from .schedules.join import join_schedules as join_schedules
from .schedules.product import (
    multiply_schedules as multiply_schedules,
    multiplicative_schedule as multiplicative_schedule,
)
from .schedules.micro_steps import (
    epoch_schedule as epoch_schedule,
    micro_step_schedule as micro_step_schedule,
)

# States, metrics and checkpoints.
from .state.metrics import metrics as metrics
from .state.state_dict import (
    state_dict as state_dict,
    schema as schema,
    load_state_dict as load_state_dict,
)
from .state.migration import (
    Rename as Rename,
    Drop as Drop,
    Reset as Reset,
    Cast as Cast,
)
from .state.reset import (
    iterations as iterations,
    reset as reset,
    set_counts as set_counts,
)

# What an optimizer does, and which rate it needs.
from .inspect.description import describe as describe
from .inspect.device_bytes import memory as memory
from .inspect.range_test import lr_range_test as lr_range_test

# Row-sparse leaves.
from .tree.row_sparse import RowSparse as RowSparse

# Numbers of trees and states; more are in `jopt.tree`.
from .tree.norms import global_norm as global_norm
from .tree.averages import safe_increment as safe_increment

# Packages.
from . import (
    tree as tree,
    schedules as schedules,
    transforms as transforms,
    projections as projections,
    losses as losses,
    checkpoint as checkpoint,
    sharding as sharding,
    testing as testing,
    logs as logs,
    inspect as inspect,
    plot as plot,
    interop as interop,
)
from ._version import __version__ as __version__
