"""Dion2: Muon for the part of a matrix that is due.

    M <- M + g
    S   the fraction of rows of M with the largest sums of magnitudes
    O <- P Q^T   of   M_S = P S Q^T
    p_S <- p_S - learning_rate s O
    M_S <- ef_decay M_S                 what has been used fades, the rest is kept

Rows are along the shorter side of the matrix, whichever it is. Ahn et al., "Dion2: a
simple method to shrink matrix in Muon", 2025, microsoft/dion.

State: 4 bytes per float32 parameter. The iteration costs ``fraction`` of Muon's or
less. Learning rate 0.01, weight decay 0.01.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms import stacks
from jopt.algorithms.adam import adamw
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.matrices import Axes, ShapeScale, letters, shape_factor, sizes
from jopt.algorithms.polar import CoefficientsName, coefficients, orthogonalize
from jopt.core import tree_checks
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.core.wide_slots import with_slots
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByDion2State(NamedTuple):
    """State of `scale_by_dion2`."""

    mu: Any  # the sum of what has not been used yet, like params


@transformation
def scale_by_dion2(
    fraction: float = 0.25,
    ef_decay: ScalarOrSchedule = 0.95,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "polar_express",
    ns_steps: int | None = None,
    mu_dtype: StorageDtype | None = None,
    *,
    axes: Axes = None,
    shape_scale: ShapeScale | None = "spectral",
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Orthogonalize the rows of the momentum that are largest; the others stay.

    Args:
      fraction: The fraction of the rows, in (0, 1]; at least one.
      ef_decay: What remains of the momentum of these rows, in [0, 1].
      ns_coeffs, ns_steps: See `scale_by_muon`.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      axes, ns_dtype, mesh_axis: See `scale_by_muon`.
      shape_scale: The scale s, by the shape of the whole matrix; see `scale_by_muon`.

    Returns:
      A transformation, for matrices only. A complex number counts by its magnitude.

    Raises:
      ValueError: A number is out of range, a leaf is not a matrix, or ``axes`` does not
        say how a leaf of three or more axes is one.

    >>> import jopt
    >>> tx, g = jopt.scale_by_dion2(0.5, ns_steps=8), jnp.array([[1.0, 0], [0, 2.0]])
    >>> u, state = tx.update(g, tx.init(g))
    >>> u.round(3), state.mu
    (Array([[0., 0.],
           [0., 1.]], dtype=float32), Array([[1. , 0. ],
           [0. , 1.9]], dtype=float32))
    """
    triples = coefficients(ns_coeffs, ns_steps)
    arguments.positive(fraction=fraction)
    arguments.at_most(1, fraction=fraction)
    arguments.fraction(ef_decay=ef_decay)
    slot = zeros(mu_dtype)

    def init(params):
        Leaves(params, "params")
        letters(axes, params)
        return ScaleByDion2State(slot.initial(params))

    def update(updates, state, params=None):
        leaves = Leaves(updates)
        if params is not None:
            leaves.aligned(params, "params")
        mu = leaves.aligned(state.mu, "the state's mu")
        layouts, new = letters(axes, updates), list(leaves.values)
        filled = [i for i in leaves.present if new[i].size]
        for i in filled:
            tree_checks.dtypes(new[i], None, mu[i])

        def run(gs, mus, ef_decay):
            each = [layouts[i] for i in filled]
            triplets = [
                _chosen(g, m, ef_decay, layout, fraction)
                for g, m, layout in zip(gs, mus, each, strict=True)
            ]
            chosen = [some for _, some, _ in triplets]
            factors = orthogonalize(
                chosen,
                ["bio"] * len(chosen),
                triples,
                dtype=ns_dtype,
                mesh_axis=mesh_axis,
            )
            us = [
                _placed(o, rows, g, layout, shape_factor(layout, g.shape, shape_scale))
                for o, (_, _, rows), g, layout in zip(
                    factors, triplets, gs, each, strict=True
                )
            ]
            return us, [rest for rest, _, _ in triplets]

        given = [new[i] for i in filled], [mu[i] for i in filled]
        results = stacks.placed(run, given)(*given, jnp.asarray(ef_decay))
        for i, u, rest in zip(filled, *results, strict=True):
            new[i], mu[i] = u, rest
        return leaves.tree(new), ScaleByDion2State(leaves.tree(mu))

    treatment = Treatment(
        layouts=functools.partial(letters, axes), whole=True, mesh_axis=mesh_axis
    )
    tx = GradientTransformation(init, update, treatment=treatment)
    return with_slots(tx, ScaleByDion2State, mu=slot)


def _turns(layout: str, shape: tuple[int, ...]) -> bool:
    """Whether the rows are the outputs, which are not more than the inputs."""
    _, inputs, outputs = sizes(layout, shape)
    return outputs <= inputs


@functools.partial(jax.jit, static_argnums=(3, 4))
def _chosen(
    g: jax.Array, mu: jax.Array, ef_decay: Any, layout: str, fraction: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The new momentum, the chosen rows of the old, and which they are."""
    wide = np.promote_types(tree.compute_dtype(g.dtype), mu.dtype)
    turns = _turns(layout, g.shape)
    total = stacks.as_matrices(mu.astype(wide) + g.astype(wide), layout)
    total = total.mT if turns else total  # (count, rows, …)
    count = max(1, math.ceil(fraction * total.shape[1]))
    _, rows = jax.lax.top_k(jnp.sum(jnp.abs(total), axis=-1), count)
    some = jnp.take_along_axis(total, rows[..., None], axis=1)
    each = jnp.arange(total.shape[1], dtype=rows.dtype)[None, None]
    is_chosen = jnp.any(rows[..., None] == each, axis=1)
    decay = jnp.asarray(ef_decay).astype(wide)
    rest = jnp.where(is_chosen[..., None], decay * total, total)
    rest = stacks.as_leaf(rest.mT if turns else rest, layout, g.shape)
    return spread_like(rest.astype(mu.dtype), mu), some, rows


@functools.partial(jax.jit, static_argnums=(3, 4))
def _placed(
    o: jax.Array, rows: jax.Array, g: jax.Array, layout: str, scale: float
) -> jax.Array:
    """An update that is zero but for the chosen rows."""
    turns = _turns(layout, g.shape)
    count, inputs, outputs = sizes(layout, g.shape)
    shape = (count, outputs, inputs) if turns else (count, inputs, outputs)
    matrices = jnp.arange(count, dtype=rows.dtype)[:, None]
    whole = jnp.zeros(shape, o.dtype).at[matrices, rows].set(scale * o)
    leaf = stacks.as_leaf(whole.mT if turns else whole, layout, g.shape)
    return spread_like(leaf.astype(g.dtype), g)


@transformation
def dion2(
    learning_rate: ScalarOrSchedule = 0.01,
    fraction: float = 0.25,
    ef_decay: ScalarOrSchedule = 0.95,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "polar_express",
    ns_steps: int | None = None,
    weight_decay: ScalarOrSchedule = 0.01,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    shape_scale: ShapeScale | None = "spectral",
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Dion2: Muon for the part of a matrix that is due.

        p <- p - learning_rate (s O + weight_decay p),   O zero for most rows

    Args:
      learning_rate: Step size of the hidden matrices, >= 0.
      fraction, ef_decay, ns_coeffs, ns_steps: See `scale_by_dion2`.
      weight_decay, weight_decay_mask, mu_dtype: See `muon`.
      adam_b1, adam_b2, adam_weight_decay, adam_learning_rate, hidden: See `muon`.
      axes, shape_scale, ns_dtype, mesh_axis: See `scale_by_dion2`.

    Returns:
      A `partition` into ``"dion2"`` and ``"adam"``, which needs params. A complex
      number counts by its magnitude.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Ahn et al., "Dion2: a simple method to shrink matrix in Muon", 2025; the defaults
    are those of microsoft/dion.

    >>> import jopt
    >>> tx, params = jopt.dion2(0.01, 0.25), {"hidden": jnp.eye(8)}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> int(jnp.sum(jnp.diag(updates["hidden"]) < -0.005))
    2
    """
    for_matrices = chain(
        scale_by_dion2(
            fraction,
            ef_decay,
            ns_coeffs,
            ns_steps,
            mu_dtype,
            axes=axes,
            shape_scale=shape_scale,
            ns_dtype=ns_dtype,
            mesh_axis=mesh_axis,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    for_others = adamw(
        rate, adam_b1, adam_b2, mu_dtype=mu_dtype, weight_decay=adam_weight_decay
    )
    return for_hidden("dion2", for_matrices, for_others, hidden)
