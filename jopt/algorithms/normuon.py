"""NorMuon: Muon whose neurons all learn at the same pace.

    O as in Muon
    v <- b2 v + (1 - b2) mean(O^2)     over the inputs: one number for each output
    u <- O / sqrt(v), with the norm of O

Li et al., "NorMuon: making Muon more efficient and scalable", 2025. What Muon makes
orthogonal has rows of unequal size, unless it is square; here each neuron's are divided
by what they usually are. ``muon(0.02, after=normalize_neurons())`` is NorMuon.

State: 4 bytes per neuron beside Muon's 4 per float32 parameter. Take Muon's settings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.matrices import positions
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class NormalizeNeuronsState(NamedTuple):
    """State of `normalize_neurons`."""

    nu: Any  # second moment for each output of a matrix; None for other leaves


@transformation
def normalize_neurons(
    b2: ScalarOrSchedule = 0.95,
    *,
    axes: str | None = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Divide the updates of each neuron by their usual size, and keep the leaf's norm.

    It is for matrices that are orthogonal, see `muon`'s ``after``: it squares them as
    they are. Leaves with less than two axes pass unchanged.

    Args:
      b2: Decay of the second moment, in [0, 1); 0.9 to 0.95.
      axes: How all leaves are matrices, such as ``"bio"``, see `matrices.Axes`; None
        takes the last axis as outputs and all others as inputs.
      nu_dtype: What ``nu`` is stored in.

    Returns:
      A transformation.

    Raises:
      ValueError: ``b2`` is not in [0, 1).

    Li et al., "NorMuon: making Muon more efficient and scalable", 2025.

    >>> import jopt
    >>> tx, o = jopt.normalize_neurons(0.0), jnp.array([[0.6, 0.0], [0.8, 0.1]])
    >>> u, _ = tx.update(o, tx.init(o))
    >>> jnp.linalg.norm(u, axis=0).round(3)  # of each neuron
    Array([0.711, 0.711], dtype=float32)
    """
    arguments.decay_rate(b2=b2)

    def inputs(shape):
        if len(shape) < 2:
            return None
        return positions(axes or "i" * (len(shape) - 1) + "o", "i")

    def rule(o, nu):
        if nu is None or not o.size:
            return o, nu
        squares = jnp.mean(tree.abs_sq(o), inputs(o.shape), keepdims=True)
        nu = b2 * nu + (1 - b2) * squares
        u = o / (jnp.sqrt(nu) + 1e-10)
        matrix = positions(axes, "io") if axes else None
        norm = jnp.maximum(tree.norm_along(u, matrix), jnp.finfo(nu.dtype).tiny)
        return u * (tree.norm_along(o, matrix) / norm), nu

    nu = zeros(nu_dtype, real=True, over=inputs)
    return leafwise(rule, state=NormalizeNeuronsState, nu=nu)
