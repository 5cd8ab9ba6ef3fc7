"""The public names of ``jopt.interop.optax``: optax's, and those that go between."""

# Between optax and jopt.
from .wrap import as_optax as as_optax, from_optax as from_optax
from .states import (
    from_optax_state as from_optax_state,
    to_optax_state as to_optax_state,
)

# The contract.
from .base import (
    EmptyState as EmptyState,
    MaskedNode as MaskedNode,
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    TransformInitFn as TransformInitFn,
    TransformUpdateFn as TransformUpdateFn,
    TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    ArrayTree as ArrayTree,
    PRNGKey as PRNGKey,
    Shape as Shape,
    OptState as OptState,
    Params as Params,
    Updates as Updates,
    Schedule as Schedule,
    ScalarOrSchedule as ScalarOrSchedule,
    MaskOrFn as MaskOrFn,
    chain as chain,
    named_chain as named_chain,
    with_extra_args_support as with_extra_args_support,
)

# Parts of optimizers.
from .scaling import (
    identity as identity,
    init_empty_state as init_empty_state,
    ScaleState as ScaleState,
    ScaleByTrustRatioState as ScaleByTrustRatioState,
    scale as scale,
    scale_by_sign as scale_by_sign,
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
    scale_by_trust_ratio as scale_by_trust_ratio,
    normalize_by_update_norm as normalize_by_update_norm,
    centralize as centralize,
    scale_by_polyak as scale_by_polyak,
    ScaleByScheduleState as ScaleByScheduleState,
    scale_by_schedule as scale_by_schedule,
    scale_by_learning_rate as scale_by_learning_rate,
    AddDecayedWeightsState as AddDecayedWeightsState,
    add_decayed_weights as add_decayed_weights,
    ScaleByAdamState as ScaleByAdamState,
    scale_by_adam as scale_by_adam,
    ScaleByAmsgradState as ScaleByAmsgradState,
    scale_by_amsgrad as scale_by_amsgrad,
    scale_by_adamax as scale_by_adamax,
    ScaleByLionState as ScaleByLionState,
    scale_by_lion as scale_by_lion,
    ScaleByAdanState as ScaleByAdanState,
    scale_by_adan as scale_by_adan,
    ScaleByBeliefState as ScaleByBeliefState,
    scale_by_belief as scale_by_belief,
    scale_by_yogi as scale_by_yogi,
    scale_by_radam as scale_by_radam,
    ScaleByNovogradState as ScaleByNovogradState,
    scale_by_novograd as scale_by_novograd,
    ScaleByRmsState as ScaleByRmsState,
    scale_by_rms as scale_by_rms,
    ScaleByRStdDevState as ScaleByRStdDevState,
    scale_by_stddev as scale_by_stddev,
    ScaleByRssState as ScaleByRssState,
    scale_by_rss as scale_by_rss,
    ScaleByAdaDeltaState as ScaleByAdaDeltaState,
    scale_by_adadelta as scale_by_adadelta,
    ScaleByRpropState as ScaleByRpropState,
    scale_by_rprop as scale_by_rprop,
    ScaleBySM3State as ScaleBySM3State,
    scale_by_sm3 as scale_by_sm3,
    FactoredState as FactoredState,
    scale_by_factored_rms as scale_by_factored_rms,
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
    ApplyEvery as ApplyEvery,
    apply_every as apply_every,
    set_to_zero as set_to_zero,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
)

# Groups of leaves.
from .masking import (
    MaskedState as MaskedState,
    masked as masked,
    PartitionState as PartitionState,
    MultiTransformState as MultiTransformState,
    partition as partition,
    multi_transform as multi_transform,
    freeze as freeze,
    selective_transform as selective_transform,
)

# Clipping and other processing.
from .processing import (
    ClipState as ClipState,
    ClipByGlobalNormState as ClipByGlobalNormState,
    AdaptiveGradClipState as AdaptiveGradClipState,
    clip as clip,
    clip_by_global_norm as clip_by_global_norm,
    clip_by_block_rms as clip_by_block_rms,
    adaptive_grad_clip as adaptive_grad_clip,
    unitwise_clip as unitwise_clip,
    unitwise_norm as unitwise_norm,
    NonNegativeParamsState as NonNegativeParamsState,
    keep_params_nonnegative as keep_params_nonnegative,
    ZeroNansState as ZeroNansState,
    zero_nans as zero_nans,
    TraceState as TraceState,
    trace as trace,
    EmaState as EmaState,
    ema as ema,
    AddNoiseState as AddNoiseState,
    add_noise as add_noise,
    flatten as flatten,
)

# Wrappers.
from .wrapping import (
    ConditionFn as ConditionFn,
    ConditionallyTransformState as ConditionallyTransformState,
    ConditionallyMaskState as ConditionallyMaskState,
    conditionally_transform as conditionally_transform,
    conditionally_mask as conditionally_mask,
    ApplyIfFiniteState as ApplyIfFiniteState,
    apply_if_finite as apply_if_finite,
    ShouldSkipUpdateFunction as ShouldSkipUpdateFunction,
    skip_not_finite as skip_not_finite,
    skip_large_updates as skip_large_updates,
    MultiStepsState as MultiStepsState,
    MultiSteps as MultiSteps,
    LookaheadState as LookaheadState,
    LookaheadParams as LookaheadParams,
    lookahead as lookahead,
    SnapshotState as SnapshotState,
    snapshot as snapshot,
    MonitorState as MonitorState,
    monitor as monitor,
    measure_with_ema as measure_with_ema,
)

# Hyperparameters in the state.
from .injecting import (
    StatefulSchedule as StatefulSchedule,
    WrappedSchedule as WrappedSchedule,
    InjectHyperparamsState as InjectHyperparamsState,
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    inject_hyperparams as inject_hyperparams,
    inject_stateful_hyperparams as inject_stateful_hyperparams,
)

# Optimizers.
from .optimizers import (
    sgd as sgd,
    noisy_sgd as noisy_sgd,
    sign_sgd as sign_sgd,
    signum as signum,
    lion as lion,
    rprop as rprop,
    fromage as fromage,
    lars as lars,
    optimistic_gradient_descent as optimistic_gradient_descent,
    polyak_sgd as polyak_sgd,
    adam as adam,
    nadam as nadam,
    adamw as adamw,
    nadamw as nadamw,
    amsgrad as amsgrad,
    adamax as adamax,
    adamaxw as adamaxw,
    adabelief as adabelief,
    adan as adan,
    yogi as yogi,
    radam as radam,
    lamb as lamb,
    novograd as novograd,
    optimistic_adam as optimistic_adam,
    optimistic_adam_v2 as optimistic_adam_v2,
    rmsprop as rmsprop,
    adagrad as adagrad,
    adadelta as adadelta,
    adafactor as adafactor,
    sm3 as sm3,
)

# Functions.
from .functions import (
    apply_updates as apply_updates,
    incremental_update as incremental_update,
    periodic_update as periodic_update,
    per_example_global_norm_clip as per_example_global_norm_clip,
    per_example_layer_norm_clip as per_example_layer_norm_clip,
)

# Line searches, which are yet to come.
from .linesearch import (
    lbfgs as lbfgs,
    scale_by_lbfgs as scale_by_lbfgs,
    scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch as scale_by_zoom_linesearch,
    value_and_grad_from_state as value_and_grad_from_state,
    ScaleByLBFGSState as ScaleByLBFGSState,
    ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState,
    ScaleByZoomLinesearchState as ScaleByZoomLinesearchState,
    ZoomLinesearchInfo as ZoomLinesearchInfo,
)

# Numbers and trees.
from .numerics import (
    global_norm as global_norm,
    matrix_inverse_pth_root as matrix_inverse_pth_root,
    multi_normal as multi_normal,
    nnls as nnls,
    power_iteration as power_iteration,
    safe_increment as safe_increment,
    safe_int32_increment as safe_int32_increment,
    safe_norm as safe_norm,
    safe_root_mean_squares as safe_root_mean_squares,
    scale_gradient as scale_gradient,
)

from .tree import (
    bias_correction as bias_correction,
    update_infinity_moment as update_infinity_moment,
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
)

from .tree_utils import (
    tree_map_params as tree_map_params,
)

from .microbatching import (
    microbatch as microbatch,
)

# Schedules.
from .schedules import (
    constant_schedule as constant_schedule,
    cosine_decay_schedule as cosine_decay_schedule,
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    exponential_decay as exponential_decay,
    join_schedules as join_schedules,
    linear_onecycle_schedule as linear_onecycle_schedule,
    linear_schedule as linear_schedule,
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
    polynomial_schedule as polynomial_schedule,
    sgdr_schedule as sgdr_schedule,
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
)

# Losses.
from .losses import (
    convex_kl_divergence as convex_kl_divergence,
    cosine_distance as cosine_distance,
    cosine_similarity as cosine_similarity,
    ctc_loss as ctc_loss,
    ctc_loss_with_forward_probs as ctc_loss_with_forward_probs,
    generalized_kl_divergence as generalized_kl_divergence,
    hinge_loss as hinge_loss,
    huber_loss as huber_loss,
    kl_divergence as kl_divergence,
    l2_loss as l2_loss,
    log_cosh as log_cosh,
    ntxent as ntxent,
    safe_softmax_cross_entropy as safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy,
    sigmoid_focal_loss as sigmoid_focal_loss,
    smooth_labels as smooth_labels,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,  # noqa: E501
    squared_error as squared_error,
)

# Packages.
from . import (
    assignment as assignment,
    contrib as contrib,
    losses as losses,
    microbatching as microbatching,
    perturbations as perturbations,
    projections as projections,
    schedules as schedules,
    second_order as second_order,
    transforms as transforms,
    tree as tree,
    tree_utils as tree_utils,
)
