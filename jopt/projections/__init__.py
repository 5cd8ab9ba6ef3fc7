"""Euclidean projections: the nearest tree that keeps a constraint.

    y = argmin ||x - y||_2  over the y in a set

A tree is one vector: a simplex, a sphere or a plane is about all its leaves together.
Everything is computed in float32 or wider and scaled, so that neither float16 nor
numbers of 1e30 overflow, and each leaf is rounded once, to its own dtype. What is in a
ball, a box or a half-space already is returned as it is.

To train under a constraint, project after the step: ``params =
projection_simplex(apply_updates(params, updates))``.
"""

from jopt.projections.balls import (
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_simplex,
)
from jopt.projections.boxes import (
    projection_box,
    projection_hypercube,
    projection_linf_ball,
    projection_non_negative,
)
from jopt.projections.planes import (
    projection_halfspace,
    projection_hyperplane,
    projection_vector,
)


__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]
