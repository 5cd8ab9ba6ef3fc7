"""Transformations of gradients: the public names, by file."""

from .learning_rate import (
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_group as scale_by_group,
    scale_by_schedule as scale_by_schedule,
)
from .plateau import reduce_on_plateau as reduce_on_plateau
from .weight_decay import (
    add_decayed_weights as add_decayed_weights,
    cautious_weight_decay as cautious_weight_decay,
    independent_weight_decay as independent_weight_decay,
    corrected_weight_decay as corrected_weight_decay,
    step_then_decay as step_then_decay,
)
from .proximal import proximal_decay as proximal_decay
from .momentum import (
    trace as trace,
    ema as ema,
    apply_every as apply_every,
)
from .grokfast import (
    grokfast_ema as grokfast_ema,
    grokfast_ma as grokfast_ma,
)
from .variance_reduction import mars_correction as mars_correction
from .clipping import (
    clip as clip,
    clip_by_global_norm as clip_by_global_norm,
    clip_by_norm as clip_by_norm,
    clip_by_block_rms as clip_by_block_rms,
    adaptive_grad_clip as adaptive_grad_clip,
)
from .z_scores import zclip as zclip
from .growth import limit_norm_growth as limit_norm_growth
from .norms import (
    normalize as normalize,
    normalize_by_update_norm as normalize_by_update_norm,
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
)
from .gradients import (
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
from .agreement import (
    cautious as cautious,
    gradient_sign as gradient_sign,
)
from .constraints import (
    keep_params_nonnegative as keep_params_nonnegative,
    project as project,
)
from .noise import add_noise as add_noise
from .per_example import aggregate as aggregate
from .dense_rows import densify as densify
