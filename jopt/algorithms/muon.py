"""Muon: momentum, orthogonalized.

    B <- beta B + (1 - beta) g            momentum
    U <- beta B + (1 - beta) g            nesterov; else B
    O <- P Q^T   of   U = P S Q^T         all singular values become 1, see `polar`
    p <- p - learning_rate (s O + weight_decay p)

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The
scale s by the matrix's shape: Liu et al., "Muon is scalable for LLM training", 2025;
Bernstein & Newhouse, "Modular duality in deep learning", 2024 (spectral).

A step changes every direction in which a matrix maps its inputs by the same amount.
That is for the weights of hidden layers: dense, attention and convolution kernels.
Embeddings, heads, norms and biases do better with AdamW. `muon` is both.

State: 4 bytes per float32 parameter, 2 with ``mu_dtype="bfloat16"``. A step of the
iteration costs three products; on GPU and TPU take ``ns_dtype="bfloat16"``. Settings:
learning rate 0.02 with ``shape_scale="kj"``, and a smaller one for AdamW; or that of
AdamW for both, with ``consistent_rms=0.2`` and weight decay 0.1. beta may rise from
0.85 to 0.95 in the first few hundred steps.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.adam import EpsMode, adamw
from jopt.algorithms.matrices import Axes, ShapeScale, is_hidden, letters, shape_factor
from jopt.algorithms.polar import coefficients, orthogonalize
from jopt.core import masks, tree_checks
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened
from jopt.transforms.gradients import identity
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.masking import partition


class ScaleByMuonState(NamedTuple):
    """State of `scale_by_muon`."""

    mu: Any  # momentum, like params


@transformation
def scale_by_muon(
    ns_coeffs: str | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    axes: Axes = None,
    shape_scale: ShapeScale | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    ns_dtype: StorageDtype | None = None,
    mesh_axis: str | None = None,
    equilibrate: bool = False,
) -> GradientTransformation:
    """Orthogonalize the momentum: ``u <- s O``; for matrices only.

    Args:
      ns_coeffs: Of the iteration: a name in `polar.PRESETS`, a triple (a, b, c) for all
        steps, or one for each.
      ns_steps: Steps of the iteration; None is what the coefficients are made for.
      beta: Decay of the momentum, in [0, 1).
      eps: Added to the norm of U; with 0 an update does not depend on the magnitude of
        the gradients.
      mu_dtype: What ``mu`` is stored in; None is float32 or wider.
      nesterov: Whether to look one step ahead.
      axes: How a leaf is a matrix, see `matrices.Axes`: ``"io"`` is a dense kernel,
        ``"bio"`` a stack of them. None takes the last axis as outputs and all others as
        inputs, which is right for dense and convolution kernels.
      shape_scale: s. ``"kj"`` is sqrt(max(1, outputs / inputs)), ``"spectral"``
        sqrt(outputs / inputs), ``"match_rms_adamw"`` 0.2 sqrt(max(inputs, outputs)),
        and None is 1.
      consistent_rms: A number r for s = r sqrt(max(inputs, outputs)).
      ns_dtype: What to iterate in; None is float32 or wider. The norm is never less.
      mesh_axis: The name of a mesh axis over which to spread the matrices, so that each
        device iterates on whole ones; ``jax.set_mesh`` says of which mesh. It takes two
        exchanges, where parameters that are spread over devices else need many.
      equilibrate: Whether to give all outputs of U the same norm before (MuonEq, 2026).

    Returns:
      A transformation.

    Raises:
      ValueError: An argument is out of its range, or a leaf is no matrix.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. As
    his code and torch's; optax debiases both parts of U, which turns it.

    >>> import jopt
    >>> tx, g = jopt.scale_by_muon("polar_express", 8), jnp.array([[3.0, 0], [0, 0.01]])
    >>> tx.update(g, tx.init(g))[0].round(3)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    triples = coefficients(ns_coeffs, ns_steps)
    arguments.decay_rate(beta=beta)
    arguments.nonnegative(eps=eps)
    arguments.one_of(
        ("kj", "match_rms_adamw", "spectral", None), shape_scale=shape_scale
    )
    arguments.nonnegative(consistent_rms=consistent_rms)

    def init(params):
        tree_checks.leaves(jax.tree.leaves(params), params, "params")
        letters(axes, params)
        return ScaleByMuonState(jax.tree.map(zeros(mu_dtype).init, params))

    def update(updates, state, params=None):
        leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        tree_checks.leaves(leaves, updates, "updates")
        aligned = functools.partial(tree_checks.aligned, updates, leaves, treedef)
        if params is not None:
            aligned(params, "params")
        mu = aligned(state.mu, "the state's mu")
        own = letters(axes, updates)

        there = [i for i, g in enumerate(leaves) if g is not None]
        directions = []
        for i in there:
            tree_checks.dtypes(leaves[i], None, mu[i])
            u, mu[i] = _momentum(leaves[i], mu[i], beta, 1 - beta, nesterov)
            directions.append(u)
        results = orthogonalize(
            directions,
            [own[i] for i in there],
            triples,
            eps=eps,
            dtype=ns_dtype,
            mesh_axis=mesh_axis,
            equilibrate=equilibrate,
        )
        for i, o in zip(there, results, strict=True):
            scale = shape_factor(own[i], o.shape, shape_scale, consistent_rms)
            leaves[i] = _scaled(o, scale, leaves[i])
        return treedef.unflatten(leaves), ScaleByMuonState(treedef.unflatten(mu))

    return GradientTransformation(init, update)


@functools.partial(jax.jit, static_argnums=4)
def _momentum(
    g: jax.Array, mu: jax.Array, beta: Any, rest: Any, nesterov: bool
) -> tuple[jax.Array, jax.Array]:
    wide = np.promote_types(tree.compute_dtype(g.dtype), mu.dtype)
    g, old, beta, rest = (jnp.asarray(x).astype(wide) for x in (g, mu, beta, rest))
    new = beta * old + rest * g
    return (beta * new + rest * g if nesterov else new), new.astype(mu.dtype)


@jax.jit
def _scaled(o: jax.Array, scale: Any, g: jax.Array) -> jax.Array:
    u = (jnp.asarray(scale).astype(o.dtype) * o).astype(g.dtype)
    return spread_like(u, g)


@transformation
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: str | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps_root: ScalarOrSchedule = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    shape_scale: ShapeScale | None = "kj",
    ns_dtype: StorageDtype | None = None,
    mesh_axis: str | None = None,
    equilibrate: bool = False,
    after: GradientTransformation | None = None,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Muon for the hidden matrices, AdamW for everything else.

        p <- p - learning_rate (s O + weight_decay p)

    Args:
      learning_rate: The step size, >= 0; 0.02 is usual with ``shape_scale="kj"``.
      ns_coeffs: See `scale_by_muon`, as for all that is not explained here.
      ns_steps: Steps of the iteration.
      beta: Decay of the momentum, in [0, 1).
      eps: Added to the norm of U.
      weight_decay: Of the hidden matrices, >= 0, multiplied by the learning rate.
      weight_decay_mask: Which of them to decay.
      mu_dtype: What momentum and AdamW's first moment are stored in.
      nesterov: Whether Muon looks one step ahead.
      adam_b1: See `adamw`, of the leaves that are not hidden matrices.
      adam_b2: 0.95 is usual for language models.
      adam_eps_root: Added under the root.
      adam_weight_decay: Of the other leaves.
      adam_learning_rate: The step size of AdamW; None is ``learning_rate``, which fits
        with ``consistent_rms=0.2`` only.
      consistent_rms: 0.2 gives updates the size of AdamW's.
      hidden: The leaves for Muon; None is what `matrices.is_hidden` tells from shapes
        and names.
      axes: How they are matrices.
      shape_scale: s by the shape.
      ns_dtype: What to iterate in.
      mesh_axis: A mesh axis over which to spread the matrices.
      equilibrate: Whether to give all outputs of U the same norm before.
      after: What to do with s O; `normalize_neurons` makes this NorMuon.
      adam_eps: Added to the root.
      adam_eps_mode: See `adamw`.

    Returns:
      A transformation, a `partition` into ``"muon"`` and ``"adam"``; it needs params.

    Raises:
      ValueError: An argument is out of its range, or a leaf of ``hidden`` no matrix.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    optax takes embeddings and heads for hidden layers, and NAdamW for the rest.

    >>> import jopt
    >>> tx = jopt.muon(0.02, adam_learning_rate=3e-3)
    >>> params = {name: jnp.ones((4, 4)) for name in ("embed", "hidden", "head")}
    >>> mu = tx.init(params)["muon"]["scale_by_muon"].mu
    >>> [name for name, slot in mu.items() if slot is not None]
    ['hidden']
    """
    if adam_learning_rate is None:
        adam_learning_rate = learning_rate
    orthogonal = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        axes=axes,
        shape_scale=shape_scale,
        consistent_rms=consistent_rms,
        ns_dtype=ns_dtype,
        mesh_axis=mesh_axis,
        equilibrate=equilibrate,
    )
    for_matrices = chain(
        orthogonal,
        after or identity(),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    for_others = adamw(
        adam_learning_rate,
        adam_b1,
        adam_b2,
        adam_eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        eps_mode=adam_eps_mode,
    )

    def labels(params):
        chosen = masks.select(is_hidden if hidden is None else hidden, params)
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        return treedef.unflatten("muon" if on else "adam" for on in chosen)

    return partition({"muon": widened(for_matrices), "adam": for_others}, labels)
