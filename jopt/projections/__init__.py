"""Euclidean projections: the nearest tree that satisfies a constraint.

    y = argmin ||x - y||_2  over the y in a set

A tree counts as one vector: a simplex, a sphere or a plane constrains all its leaves
together. All computations are in float32 or wider and scaled, so that neither float16
nor numbers of 1e30 overflow. Each leaf is rounded once, to its own dtype. A point that
is already in a ball, a box or a half-space is returned unchanged.

To train under a constraint, put `jopt.project` last in the chain:
``chain(adam(1e-2), project(projection_simplex))``.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
