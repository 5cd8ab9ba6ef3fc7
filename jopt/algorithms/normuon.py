"""NorMuon: Muon with updates of similar size for all neurons.

    O as in Muon
    v <- b2 v + (1 - b2) mean(O^2)     over the inputs: one number for each output
    u <- O / sqrt(v), rescaled to the norm of O

Li et al., "NorMuon: making Muon more efficient and scalable", 2025. Unless a matrix is
square, Muon's orthogonal updates differ in norm from neuron to neuron. NorMuon divides
each neuron's update by its running root mean square. Use it as
``muon(0.02, after=normalize_neurons())``.

State: 4 bytes per neuron beside Muon's 4 per float32 parameter. Use Muon's settings.
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
    """Divide each neuron's updates by their running RMS, and keep the norm of the leaf.

    It follows Muon, see the ``after`` of `muon`: the squares are safe from overflow
    only because the updates are orthogonal. Leaves with fewer than two axes pass
    unchanged.

    Args:
      b2: Decay of the second moment, in [0, 1); 0.9 to 0.95.
      axes: The matrix layout of all leaves, such as ``"bio"``, see `matrices.Axes`;
        None takes the last axis as outputs and all others as inputs.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: ``b2`` is outside [0, 1).

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

    nu = zeros(nu_dtype, real=True, over=inputs, divides=True)
    return leafwise(rule, state=NormalizeNeuronsState, nu=nu)
