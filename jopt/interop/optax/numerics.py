"""Functions of numbers, vectors and matrices at the top level of optax."""

from __future__ import annotations

from jopt.algorithms import linear_algebra
from jopt.gradients import perturbations, scaled
from jopt.interop.optax.deprecated import deprecated
from jopt.tree import averages, norms


__all__ = [
    "abs_sq",
    "global_norm",
    "matrix_inverse_pth_root",
    "multi_normal",
    "nnls",
    "power_iteration",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "scale_gradient",
]

abs_sq = norms.abs_sq
global_norm = deprecated("optax.tree.norm")(norms.global_norm)
matrix_inverse_pth_root = linear_algebra.matrix_inverse_pth_root
multi_normal = perturbations.DiagonalNormal
nnls = linear_algebra.nnls
power_iteration = linear_algebra.power_iteration
safe_increment = averages.safe_increment
safe_int32_increment = averages.safe_increment
safe_norm = norms.safe_norm
safe_root_mean_squares = norms.safe_root_mean_squares
scale_gradient = scaled.scale_gradient
