"""Hyperball: matrices of constant norm, and updates of a fixed size beside it.

    R <- |W_0|                          the norm of the matrix at the start
    u <- a direction: Muon's, Adam's, SOAP's
    W <- W - learning_rate R u / |u|
    W <- R W / |W|

Wen et al., "Hyperball optimization", 2026 (MuonH, AdamH); the NanoGPT speedruns (track
3, 2026). The learning rate is the ratio of update and weights, the same for all
matrices; it transfers between widths and depths better than one whose effect depends on
the norms. There is no weight decay, which only serves to balance the norms.

State: one number per matrix beside the direction's. Learning rate 0.01 to 0.02 for
Muon's direction, 0.005 for Adam's, with decay to zero. The initial norms stay, so they
matter: a linear layer's usual initialization times 1.25 to 3 for the projections that
write to a residual stream.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.adam import adamw, scale_by_adam
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.matrices import Axes, layouts_of, sizes
from jopt.algorithms.muon import scale_by_muon
from jopt.algorithms.norm_control import nonzero, norms, times
from jopt.algorithms.polar import CoefficientsName
from jopt.algorithms.soap import Statistics, scale_by_soap
from jopt.core.chain import as_transformation, chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.transforms.constraints import LAST
from jopt.tree.like import applied, spread_like
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


# A matrix with less than this part of its radius grows, and is not yet stretched to it.
_GROWN = 0.9


class ScaleByHyperballState(NamedTuple):
    """State of `scale_by_hyperball`."""

    radius: Any  # float32 or wider, the norm of each matrix, with its axes of length 1


@transformation
def scale_by_hyperball(
    learning_rate: ScalarOrSchedule, *, axes: Axes = None
) -> GradientTransformation:
    """Apply the learning rate and keep the norms of matrices, last in a chain.

        W <- R (W - learning_rate R u / |u|) / |W - learning_rate R u / |u||

    A matrix that is zero at the start has no norm to keep. Its radius is the square
    root of the number of outputs, which is the norm that LeCun's initialization would
    give; it grows by steps of the same size, and keeps the radius once it is there.

    Args:
      learning_rate: The ratio of update and matrix, >= 0.
      axes: The matrix layout of the leaves, as for `scale_by_muon`. Leaves with fewer
        than two axes count as one vector, which stays zero if it is zero.

    Returns:
      A transformation that needs params. No later member of a chain may change the
      updates. An update of zero leaves the matrix where it is.

    Raises:
      ValueError: ``learning_rate`` is negative, or ``axes`` does not say how a leaf of
        three or more axes is a matrix.

    Wen et al., "Hyperball optimization", 2026.

    >>> import jopt
    >>> tx, params = jopt.scale_by_hyperball(1.0), jnp.array([[0.0], [5.0]])
    >>> jopt.step(tx, jnp.array([[-7.0], [0.0]]), tx.init(params), params)[0].ravel()
    Array([3.535534, 3.535534], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate)

    def init(params):
        leaves = Leaves(params, "params")
        radius = leaves.each(
            lambda p, layout: applied(lambda p: _radius(p, layout), p),
            layouts_of(axes, leaves),
        )
        return ScaleByHyperballState(leaves.tree(radius))

    def update(updates, state, params):
        leaves = Leaves(updates)
        olds, layouts = leaves.aligned(params, "params"), layouts_of(axes, leaves)
        radii = leaves.treedef.flatten_up_to(state.radius)
        new = leaves.each(
            lambda u, p, r, layout: _step(u, p, r, learning_rate, layout),
            olds,
            radii,
            layouts,
        )
        return leaves.tree(new), state

    def letters_of(params):
        return layouts_of(axes, Leaves(params, "params"))

    return GradientTransformation(
        init, update, place=LAST, treatment=Treatment(layouts=letters_of)
    )


@functools.partial(jax.jit, static_argnums=1)
def _radius(p: Any, layout: str | None) -> jax.Array:
    p = jnp.asarray(p)
    norm = norms(p.astype(tree.compute_dtype(p.dtype)), layout)
    outputs = 0 if layout is None else sizes(layout, p.shape)[2]
    return jnp.where(norm > 0, norm, math.sqrt(outputs))


@functools.partial(jax.jit, static_argnums=4)
def _step(
    u: jax.Array, p: jax.Array, radius: jax.Array, rate: Any, layout: str | None
) -> jax.Array:
    wide = np.promote_types(tree.compute_dtype(u.dtype), tree.compute_dtype(p.dtype))
    old, direction = p.astype(wide), u.astype(wide)
    radius = radius.astype(jnp.finfo(wide).dtype)
    rate = jnp.asarray(rate).astype(radius.dtype)
    new = old - times(direction, rate * radius / nonzero(norms(direction, layout)))
    before, after = norms(old, layout), norms(new, layout)
    grows = (before < _GROWN * radius) & (after < radius)
    new = times(new, jnp.where(grows | (after == 0), 1, radius / nonzero(after)))
    return spread_like((new - old).astype(u.dtype), u)


@transformation
def hyperball(
    direction: GradientTransformation,
    learning_rate: ScalarOrSchedule,
    *,
    others: GradientTransformation | None = None,
    hidden: Mask = None,
    axes: Axes = None,
) -> GradientTransformation:
    """Steps of a fixed relative size in any direction, at constant norms.

        u <- direction(g)
        W <- R (W - learning_rate R u / |u|) / |…|,   R = |W_0|

    Args:
      direction: What makes the direction of the hidden matrices from their gradients,
        without a learning rate: `scale_by_muon`, `scale_by_adam`, or a chain.
      learning_rate: The ratio of update and matrix, >= 0.
      others: The optimizer of the other leaves; None means `adamw` with
        ``learning_rate``.
      hidden: The hidden matrices, see `muon`.
      axes: The matrix layout of the leaves, as for `scale_by_muon`, and for the norms
        only.

    Returns:
      A `partition` into ``"hyperball"`` and ``"adam"``, which needs params. A complex
      number counts by its magnitude.

    Raises:
      ValueError: ``learning_rate`` is negative, or a leaf of ``hidden`` is not a
        matrix.

    Wen et al., "Hyperball optimization", 2026.

    >>> import jopt
    >>> direction = jopt.chain(jopt.trace(0.9), jopt.scale_by_sign())
    >>> tx = jopt.hyperball(direction, 0.01, others=jopt.adam(1e-3))
    >>> params = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}
    >>> params, _ = jopt.step(tx, params, tx.init(params), params)
    >>> float(jnp.linalg.norm(params["w"]))
    5.0
    """
    direction = as_transformation(direction, "hyperball: direction")
    matrices = chain(direction, scale_by_hyperball(learning_rate, axes=axes))
    others = adamw(learning_rate) if others is None else others
    return for_hidden("hyperball", matrices, others, hidden)


@transformation
def muon_h(
    learning_rate: ScalarOrSchedule = 0.018,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "newton_schulz",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    adam_b1: ScalarOrSchedule = 0.8,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """MuonH: Muon's direction, at constant norms of the hidden matrices.

        W <- R (W - learning_rate R O / |O|) / |…|,   R = |W_0|

    Args:
      learning_rate: The ratio of update and matrix, >= 0; it decays to zero.
      ns_coeffs, ns_steps, beta, mu_dtype, nesterov: See `scale_by_muon`.
      adam_b1, adam_b2, adam_weight_decay: See `muon`.
      adam_learning_rate: Step size of the leaves that are not hidden matrices; None
        means ``learning_rate``, which is large for AdamW.
      hidden: See `muon`.
      axes, ns_dtype, mesh_axis: See `scale_by_muon`.

    Returns:
      A `partition` into ``"hyperball"`` and ``"adam"``, which needs params. A complex
      number counts by its magnitude.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Wen et al., "Hyperball optimization", 2026; the defaults are those of the NanoGPT
    speedruns (track 3).

    >>> import jopt
    >>> tx = jopt.muon_h(0.018, adam_learning_rate=3e-3)
    >>> params = {"hidden": jnp.eye(4), "head": jnp.ones((4, 2))}
    >>> params, _ = jopt.step(tx, params, tx.init(params), params)
    >>> jnp.linalg.norm(params["hidden"])
    Array(2., dtype=float32)
    """
    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
        axes=axes,
        ns_dtype=ns_dtype,
        mesh_axis=mesh_axis,
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    others = adamw(
        rate, adam_b1, adam_b2, mu_dtype=mu_dtype, weight_decay=adam_weight_decay
    )
    return hyperball(direction, learning_rate, others=others, hidden=hidden, axes=axes)


@transformation
def adam_h(
    learning_rate: ScalarOrSchedule = 0.005,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: StorageDtype | None = None,
    *,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
) -> GradientTransformation:
    """AdamH: Adam's direction, at constant norms of the hidden matrices.

        W <- R (W - learning_rate R u / |u|) / |…|,   R = |W_0|

    Args:
      learning_rate: The ratio of update and matrix, >= 0; it decays to zero.
      b1, b2, eps, mu_dtype: See `adamw`.
      adam_weight_decay: See `muon`.
      adam_learning_rate: Step size of the leaves that are not hidden matrices; None
        means ``learning_rate``.
      hidden: See `muon`.
      axes: See `scale_by_muon`.

    Returns:
      A `partition` into ``"hyperball"`` and ``"adam"``, which needs params. A complex
      number counts by its magnitude.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Wen et al., "Hyperball optimization", 2026; the defaults are those of the NanoGPT
    speedruns (track 3).

    >>> import jopt
    >>> tx, params = jopt.adam_h(0.005), {"hidden": jnp.eye(4)}
    >>> params, _ = jopt.step(tx, params, tx.init(params), params)
    >>> jnp.linalg.norm(params["hidden"])
    Array(2., dtype=float32)
    """
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    others = adamw(rate, b1, b2, eps, mu_dtype=mu_dtype, weight_decay=adam_weight_decay)
    direction = scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)
    return hyperball(direction, learning_rate, others=others, hidden=hidden, axes=axes)


@transformation
def soap_h(
    learning_rate: ScalarOrSchedule = 0.018,
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: StorageDtype | None = None,
    *,
    precond_dtype: PlainDtype | None = None,
    shampoo_beta: ScalarOrSchedule | None = None,
    precondition_frequency: int = 1,
    max_dim: int = 10_000,
    statistics: Statistics = "shampoo",
    staggered: bool = True,
    adam_b1: ScalarOrSchedule = 0.8,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """SOAP-H: SOAP's direction, at constant norms of the hidden matrices.

        W <- R (W - learning_rate R u / |u|) / |…|,   R = |W_0|

    The moments are not corrected for their start at zero, which would only change the
    size of u.

    Args:
      learning_rate: The ratio of update and matrix, >= 0; it decays to zero.
      b1, b2, eps, mu_dtype, precond_dtype, shampoo_beta: See `scale_by_soap`.
      precondition_frequency: See `scale_by_soap`; 10 is much cheaper.
      max_dim, staggered: See `scale_by_soap`.
      statistics: ``"shampoo"``, or ``"kl"`` for KL-SOAP-H.
      adam_b1, adam_b2, adam_weight_decay: See `muon`.
      adam_learning_rate: Step size of the leaves that are not hidden matrices; None
        means ``learning_rate``, which is large for AdamW.
      hidden: See `muon`.
      axes, mesh_axis: See `scale_by_muon`.

    Returns:
      A `partition` into ``"hyperball"`` and ``"adam"``, for real numbers; it needs
      params. The first step moves no hidden matrix.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Wen et al., "Hyperball optimization", 2026; the defaults are those of the NanoGPT
    speedruns (track 3).

    >>> import jopt
    >>> tx, params = jopt.soap_h(0.018), {"hidden": jnp.eye(4)}
    >>> params, _ = jopt.step(tx, params, tx.init(params), params)
    >>> jnp.linalg.norm(params["hidden"])
    Array(2., dtype=float32)
    """
    direction = scale_by_soap(
        b1,
        b2,
        eps,
        mu_dtype,
        precond_dtype=precond_dtype,
        shampoo_beta=shampoo_beta,
        precondition_frequency=precondition_frequency,
        max_dim=max_dim,
        statistics=statistics,
        bias_correction=False,
        staggered=staggered,
        axes=axes,
        mesh_axis=mesh_axis,
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    others = adamw(
        rate, adam_b1, adam_b2, mu_dtype=mu_dtype, weight_decay=adam_weight_decay
    )
    return hyperball(direction, learning_rate, others=others, hidden=hidden, axes=axes)
