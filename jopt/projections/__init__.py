"""Euclidean projections: the nearest tree that keeps a constraint.

    y = argmin ||x - y||_2  over the y in a set

A tree is one vector: a simplex, a sphere or a plane is about all its leaves together.
Everything is computed in float32 or wider and scaled, so that neither float16 nor
numbers of 1e30 overflow, and each leaf is rounded once, to its own dtype. What is in a
ball, a box or a half-space already is returned as it is.

To train under a constraint, project after the step: ``params =
projection_simplex(apply_updates(params, updates))``.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
