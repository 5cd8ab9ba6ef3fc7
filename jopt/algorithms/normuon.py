"""NorMuon: Muon with updates of similar size for all neurons.

    O as in Muon
    v <- b2 v + (1 - b2) mean(O^2)     over the inputs: one number for each output
    u <- O / sqrt(v), rescaled to the norm of O

Li et al., "NorMuon: making Muon more efficient and scalable", 2025. Unless a matrix is
square, Muon's orthogonal updates differ in norm from neuron to neuron. NorMuon divides
each neuron's update by its running root mean square. `normuon` is
``muon(0.02, after=normalize_neurons())``; the same goes behind any direction.

State: 4 bytes per neuron beside Muon's 4 per float32 parameter. Use Muon's settings.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.matrices import Axes, ShapeScale, layouts_of, positions
from jopt.algorithms.muon import muon
from jopt.algorithms.polar import CoefficientsName
from jopt.core import tree_checks
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class NormalizeNeuronsState(NamedTuple):
    """State of `normalize_neurons`."""

    nu: Any  # second moment for each output of a matrix; None for other leaves


@transformation
def normalize_neurons(
    b2: ScalarOrSchedule = 0.95,
    *,
    axes: Axes = None,
    nu_dtype: PlainDtype | None = None,
) -> GradientTransformation:
    """Divide each neuron's updates by their running RMS, and keep the norm of the leaf.

    It follows Muon, see the ``after`` of `muon`: the squares are safe from overflow
    only because the updates are orthogonal. Leaves with fewer than two axes pass
    unchanged.

    Args:
      b2: Decay of the second moment, in [0, 1); 0.9 to 0.95.
      axes: The matrix layout of the leaves, as for `scale_by_muon`.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: ``b2`` is outside [0, 1), or ``axes`` does not say how a leaf of three
        or more axes is a matrix.

    Li et al., "NorMuon: making Muon more efficient and scalable", 2025.

    >>> import jopt
    >>> tx, o = jopt.normalize_neurons(0.0), jnp.array([[0.6, 0.0], [0.8, 0.1]])
    >>> u, _ = tx.update(o, tx.init(o))
    >>> jnp.linalg.norm(u, axis=0).round(3)  # of each neuron
    Array([0.711, 0.711], dtype=float32)
    """
    arguments.decay_rate(b2=b2)
    slot = zeros(nu_dtype, real=True, divides=True)
    slot.check("nu")

    treatment = Treatment(
        layouts=lambda params: layouts_of(axes, Leaves(params, "params"))
    )

    def per_output(layout):
        return slot._replace(over=lambda _: positions(layout, "i"))

    def init(params):
        leaves = Leaves(params, "params")
        nu = [
            None if layout is None else per_output(layout).init(p)
            for p, layout in zip(leaves.values, layouts_of(axes, leaves), strict=True)
        ]
        return NormalizeNeuronsState(leaves.tree(nu))

    def update(updates, state, params=None):
        leaves = Leaves(updates)
        if params is not None:
            leaves.aligned(params, "params")
        each = layouts_of(axes, leaves)
        slots = [
            None if layout is None else jax.eval_shape(per_output(layout).init, o)
            for o, layout in zip(leaves.values, each, strict=True)
        ]
        nu = tree_checks.aligned(
            updates, slots, leaves.treedef, state.nu, "the state's nu"
        )
        new = leaves.values
        for i, layout in enumerate(each):
            if layout is not None and new[i].size:
                tree_checks.dtypes(new[i], None, nu[i])
                # `1 - b2` is formed here, while b2 may still be a Python double.
                new[i], nu[i] = _normalized(new[i], nu[i], b2, 1 - b2, layout)
        return leaves.tree(new), NormalizeNeuronsState(leaves.tree(nu))

    return GradientTransformation(init, update, treatment=treatment)


@functools.partial(jax.jit, static_argnums=4)
def _normalized(
    o: jax.Array, nu: jax.Array, b2: Any, rest: Any, layout: str
) -> tuple[jax.Array, jax.Array]:
    wide = np.promote_types(tree.compute_dtype(o.dtype), nu.dtype)
    real = jnp.finfo(wide).dtype
    old, b2, rest = (jnp.asarray(x).astype(real) for x in (nu, b2, rest))
    u = o.astype(wide)
    squares = jnp.mean(tree.abs_sq(u), positions(layout, "i"), keepdims=True)
    new = b2 * old + rest * squares
    matrix = positions(layout, "io")
    before = tree.norm_along(u, matrix)
    u = u / (jnp.sqrt(new) + 1e-10)
    norm = jnp.maximum(tree.norm_along(u, matrix), jnp.finfo(real).tiny)
    return (u * (before / norm)).astype(o.dtype), new.astype(nu.dtype)


@transformation
def normuon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    shape_scale: ShapeScale | None = "kj",
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """NorMuon: Muon with updates of similar size for all neurons.

        p <- p - learning_rate (normalized(s O) + weight_decay p)

    Args:
      learning_rate: Step size of the hidden matrices, >= 0; 0.02 in the paper.
      ns_coeffs, ns_steps, beta: See `scale_by_muon`.
      b2: See `normalize_neurons`.
      weight_decay, weight_decay_mask, mu_dtype: See `muon`.
      nesterov: See `scale_by_muon`.
      adam_b1, adam_b2, adam_weight_decay, adam_learning_rate, hidden: See `muon`.
      consistent_rms, axes, shape_scale, ns_dtype, mesh_axis: See `scale_by_muon`.

    Returns:
      A `partition` into ``"muon"`` and ``"adam"``, which needs params; see `muon`.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Li et al., "NorMuon: making Muon more efficient and scalable", 2025. Equal to
    microsoft/dion's ``NorMuon``, whose iteration is Polar Express and whose scale is
    ``shape_scale="spectral"``, without nesterov.

    >>> import jopt
    >>> tx = jopt.normuon(0.02, adam_learning_rate=3e-3)
    >>> list(tx.init({"hidden": jnp.ones((4, 4))})["muon"])
    ['scale_by_muon', 'normalize_neurons', 'scale_by_learning_rate']
    """
    return muon(
        learning_rate,
        ns_coeffs,
        ns_steps,
        beta,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_weight_decay=adam_weight_decay,
        adam_learning_rate=adam_learning_rate,
        consistent_rms=consistent_rms,
        hidden=hidden,
        axes=axes,
        shape_scale=shape_scale,
        ns_dtype=ns_dtype,
        mesh_axis=mesh_axis,
        after=normalize_neurons(b2, axes=axes),
    )
