"""The public names of ``jopt.tree``."""

# Arithmetic on leaves.
from .arithmetic import (
    add as add,
    sub as sub,
    mul as mul,
    div as div,
    scale as scale,
    add_scale as add_scale,
    clip as clip,
    where as where,
)

# Dtypes.
from .dtypes import (
    real as real,
    conj as conj,
    cast as cast,
    cast_like as cast_like,
    dtype as dtype,
    compute_dtype as compute_dtype,
    scalar_dtype as scalar_dtype,
    scalar as scalar,
)

# One number.
from .reductions import (
    sum as sum,
    vdot as vdot,
    max as max,
    min as min,
    size as size,
    allclose as allclose,
)
from .norms import (
    norm as norm,
    norm_along as norm_along,
    norm_of_bounded as norm_of_bounded,
    abs_sq as abs_sq,
    safe_norm as safe_norm,
    safe_root_mean_squares as safe_root_mean_squares,
)

from .ratios import ratio as ratio

# New trees.
from .like import (
    zeros_like as zeros_like,
    ones_like as ones_like,
    full_like as full_like,
    batch_shape as batch_shape,
    random_like as random_like,
    split_key_like as split_key_like,
    unwrap_random_key_data as unwrap_random_key_data,
)

# Moving averages and counts.
from .averages import (
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
    update_infinity_moment as update_infinity_moment,
    bias_correction as bias_correction,
    one_minus_power as one_minus_power,
    safe_increment as safe_increment,
)

# Optimizer states.
from .state_fields import (
    get as get,
    get_all_with_path as get_all_with_path,
    set as set,
    NamedTupleKey as NamedTupleKey,
)
from .state_params import map_params as map_params

# Paths.
from .paths import path_name as path_name, leaves_with_names as leaves_with_names
from .row_sparse import is_leaf as is_leaf
