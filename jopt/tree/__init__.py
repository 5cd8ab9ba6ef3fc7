"""PyTree arithmetic: the functions of ``optax.tree``, and what algorithms share.

Every function takes trees of arrays in which None is no leaf. Sums, norms and products
are computed in float32 or wider, so nothing overflows in float16 or stands still in
bfloat16; a result is rounded once, to the dtype of its leaf. Trees that do not match
are an error that names the leaf.
"""

from jopt.tree.arithmetic import add, add_scale, clip, div, mul, scale, sub, where
from jopt.tree.dtypes import (
    cast,
    cast_like,
    compute_dtype,
    conj,
    dtype,
    real,
    scalar,
    scalar_dtype,
)
from jopt.tree.like import (
    batch_shape,
    full_like,
    ones_like,
    random_like,
    split_key_like,
    unwrap_random_key_data,
    zeros_like,
)
from jopt.tree.moments import (
    bias_correction,
    one_minus_power,
    safe_increment,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from jopt.tree.norms import abs_sq, norm, norm_along, norm_of_bounded
from jopt.tree.parameters import map_params
from jopt.tree.paths import leaves_with_names, path_name
from jopt.tree.reductions import allclose, max, min, size, sum, vdot
from jopt.tree.rows import is_leaf
from jopt.tree.states import NamedTupleKey, get, get_all_with_path, set


__all__ = [  # noqa: RUF022, by subject
    # Arithmetic on leaves.
    "add",
    "sub",
    "mul",
    "div",
    "scale",
    "add_scale",
    "clip",
    "where",
    "real",
    "conj",
    # One number.
    "sum",
    "vdot",
    "norm",
    "norm_along",
    "norm_of_bounded",
    "abs_sq",
    "max",
    "min",
    "size",
    "allclose",
    # Dtypes.
    "cast",
    "cast_like",
    "dtype",
    "compute_dtype",
    "scalar_dtype",
    "scalar",
    # New trees.
    "zeros_like",
    "ones_like",
    "full_like",
    "batch_shape",
    "random_like",
    "split_key_like",
    "unwrap_random_key_data",
    # Moving averages and counts.
    "update_moment",
    "update_moment_per_elem_norm",
    "update_infinity_moment",
    "bias_correction",
    "one_minus_power",
    "safe_increment",
    # Optimizer states.
    "get",
    "get_all_with_path",
    "set",
    "NamedTupleKey",
    "map_params",
    # Paths.
    "path_name",
    "leaves_with_names",
    "is_leaf",
]
