"""GaLore: another optimizer's moments in a low-rank subspace of the gradient.

    P <- the first r singular vectors of G         (every T steps; otherwise unchanged)
    N <- the update of another optimizer for P^T G
    u <- scale P N

This is for an (m, n) gradient with m < n; if m >= n, G P and N P^T take the place of
P^T G and P N, so the shorter side is projected. The moments stay as they are when P
changes.

Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank projection",
2024. State with Adam: ``4 (min(m, n) r + 2 max(m, n) r) / (m n)`` bytes per float32
parameter of a matrix, Adam's 8 bytes of all other leaves. Use it to train all weights
of a large model when Adam's moments do not fit: rank a quarter of the width, gap 200,
scale 0.25, learning rate 0.01.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jopt import tree
from jopt.algorithms.adam import scale_by_adam
from jopt.core import tree_checks
from jopt.core.chain import as_transformation, chain
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves, wide
from jopt.core.masks import Mask
from jopt.core.order import check_changeable
from jopt.core.slots import filled, resized, resized_spec
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


Side = Literal["shorter", "longer"]


class ScaleByGaloreState(NamedTuple):
    """State of `scale_by_galore`."""

    count: jax.Array  # int32 scalar, updates so far
    base_optimizer_state: Any  # for projected matrices, and all other leaves
    projector: Any  # singular vectors, (side, rank); None for other leaves


@transformation
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: ScalarOrSchedule = 1.0,
    base_optimizer: GradientTransformation | None = None,
    *,
    side: Side = "shorter",
) -> GradientTransformation:
    """Show another optimizer matrices through their leading singular vectors.

    Leaves with two axes are projected. The base optimizer sees all others unchanged.
    The sign of a singular vector is arbitrary, and cancels in the update; new vectors
    take the sign of their predecessors, so that the moments still fit.

    Args:
      rank: Number of singular vectors, >= 1; at most all.
      update_proj_gap: Steps from one decomposition to the next, >= 1. The first step
        decomposes every matrix; steps within the gap decompose none.
      scale: Factor for the updates of matrices; 0.25 in the paper.
      base_optimizer: A transformation that does not need params; None means
        `scale_by_adam`. The authors use ``scale_by_adam(eps=1e-6, eps_mode="before")``.
      side: The side to project: ``"shorter"`` (the authors), or ``"longer"`` (optax),
        which has less state at small ranks.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range, or the base optimizer needs params.

    Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank
    projection", 2024.

    >>> import jopt
    >>> tx = jopt.scale_by_galore(rank=2)
    >>> state = tx.init(jnp.ones((8, 4)))
    >>> state.projector.shape, state.base_optimizer_state.mu.shape
    ((4, 2), (8, 2))
    """
    arguments.at_least(1, rank=rank, update_proj_gap=update_proj_gap)
    arguments.finite(scale=scale)
    arguments.one_of(("shorter", "longer"), side=side)
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    base = as_transformation(base, "scale_by_galore: base_optimizer")
    check_changeable("scale_by_galore", base)
    if _needs_params(base):
        raise ValueError(
            f"base_optimizer={base!r} needs params, but it sees projected gradients. "
            "Pass its scale_by_… instead, and chain what needs params, such as weight "
            "decay, after this transformation"
        )

    def projector_shape(shape):
        # Leaves that are not matrices, or have no elements, are not projected.
        if len(shape) != 2 or not min(shape):
            return None
        return shape[0 if on_the_left(shape) else 1], min(rank, *shape)

    def on_the_left(shape):
        return (shape[0] < shape[1]) == (side == "shorter")

    def init(params):
        leaves = Leaves(params, "params", real_only="scale_by_galore")
        projected = leaves.values
        projectors: list[Any] = [None] * len(projected)
        for i, p in enumerate(projected):
            if p is not None and (side_and_rank := projector_shape(jnp.shape(p))):
                left = on_the_left(jnp.shape(p))
                (m, n), r = jnp.shape(p), side_and_rank[1]
                dtype = tree.compute_dtype(jnp.result_type(p))
                # The base optimizer's moments are sharded as the gradient is.
                projected[i] = resized(p, (r, n) if left else (m, r), 0.0, dtype)
                # The projector is sharded as the side that it projects.
                thin = filled(p, 0.0, dtype, (1,) if left else (0,))
                side = thin if left else thin.T
                projectors[i] = jnp.broadcast_to(side, side_and_rank)
        return ScaleByGaloreState(
            jnp.zeros((), jnp.int32),
            base.init(leaves.tree(projected)),
            leaves.tree(projectors),
        )

    def update(updates, state, params=None, **extra):
        leaves = Leaves(updates, real_only="scale_by_galore")
        if params is not None:  # the base optimizer does not get them to check
            leaves.aligned(params, "params")
        projectors = leaves.aligned(
            state.projector, "the state's projector", shapes=projector_shape
        )
        due = state.count % update_proj_gap == 0
        # Updates are not rounded to bfloat16 between two transformations.
        inputs = leaves.each(wide)
        pairs = list(zip(leaves.values, projectors, strict=True))
        for i, (g, projector) in enumerate(pairs):
            if g is not None and projector is not None:
                left = on_the_left(g.shape)
                inputs[i], projectors[i] = project(g, projector, due, left)
        new, base_state = base.update(
            leaves.tree(inputs), state.base_optimizer_state, **extra
        )
        new = leaves.treedef.flatten_up_to(new)
        for i, (g, projector) in enumerate(zip(leaves.values, projectors, strict=True)):
            if g is not None and projector is not None:
                left = on_the_left(g.shape)
                new[i] = unproject(new[i], projector, scale, g, left)
            elif g is not None:
                new[i] = new[i].astype(g.dtype)
        count = tree.safe_increment(state.count)
        state = ScaleByGaloreState(count, base_state, leaves.tree(projectors))
        return leaves.tree(new), state

    return GradientTransformation(
        init,
        update,
        children={"base_optimizer_state": base},
        state_class=ScaleByGaloreState,
    )


def _needs_params(tx: GradientTransformation) -> bool:
    inner = tx.children.values()
    return "params" in tx.needs.requires or any(map(_needs_params, inner))


def project(
    g: jax.Array,
    old: jax.Array,
    due: jax.Array,
    left: bool,
    *,
    keep_signs: bool = True,
    svd_dtype: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the projected gradient and the projector, which is new if it is due.

    Args:
      g: The gradient, a matrix.
      old: The projector so far.
      due: Whether to decompose ``g``.
      left: Whether the projector stands on the left of ``g``.
      keep_signs: Whether new vectors take the signs of their predecessors, or those
        that the decomposition gives.
      svd_dtype: Dtype of the decomposition; None means the compute dtype.
    """
    run = functools.partial(
        _projected, left=left, keep_signs=keep_signs, svd_dtype=svd_dtype
    )
    (m, n), r = g.shape, old.shape[1]
    low = resized_spec(jax.typeof(g).sharding, g.shape, (r, n) if left else (m, r))
    return _spread(run, g, low, jax.typeof(old).sharding.spec)(g, old, due)


def unproject(
    n: jax.Array, projector: jax.Array, scale: Any, like: jax.Array, left: bool
) -> jax.Array:
    """Return the update of the whole matrix, from the update of the projected one."""
    run = functools.partial(_unprojected, dtype=like.dtype, left=left)
    return _spread(run, like, jax.typeof(like).sharding.spec)(n, projector, scale)


def _spread(run: Any, like: jax.Array, *specs: PartitionSpec) -> Any:
    """Return ``run`` with these shardings of its results, if shardings are types.

    The compiler decides how to distribute the products and decompositions over devices.
    """
    mesh = jax.typeof(like).sharding.mesh
    if not mesh.explicit_axes:
        return run
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    auto: Any = jax.sharding.auto_axes
    return auto(run, out_sharding=shardings if len(specs) > 1 else shardings[0])


@functools.partial(jax.jit, static_argnames=("left", "keep_signs", "svd_dtype"))
def _projected(
    g: jax.Array,
    old: jax.Array,
    due: jax.Array,
    *,
    left: bool,
    keep_signs: bool,
    svd_dtype: Any,
) -> tuple[jax.Array, jax.Array]:
    tree_checks.dtypes(g, None, old)
    g = g.astype(np.promote_types(tree.compute_dtype(g.dtype), old.dtype))

    def decompose(g):
        g = g if svd_dtype is None else g.astype(svd_dtype)
        u, _, vh = jnp.linalg.svd(g, full_matrices=False)
        vectors = (u if left else vh.T)[:, : old.shape[1]]
        if not keep_signs:
            return vectors.astype(old.dtype)
        agree = jnp.sum(vectors * old, axis=0) >= 0
        return jnp.where(agree, vectors, -vectors).astype(old.dtype)

    # The subspace is a constant to autodiff: the SVD is not differentiated.
    new = jax.lax.cond(due, decompose, lambda g: old, jax.lax.stop_gradient(g))
    wide = new.astype(g.dtype)
    return (_dot(wide.T, g) if left else _dot(g, wide)), new


@functools.partial(jax.jit, static_argnames=("dtype", "left"))
def _unprojected(
    n: jax.Array, projector: jax.Array, scale: Any, *, dtype: Any, left: bool
) -> jax.Array:
    projector = projector.astype(n.dtype)
    u = _dot(projector, n) if left else _dot(n, projector.T)
    return (jnp.asarray(scale, u.dtype) * u).astype(dtype)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # The default precision rounds float32 to TF32 or bfloat16 on accelerators.
    return jnp.matmul(a, b, precision="highest")


@transformation
def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: ScalarOrSchedule = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    side: Side = "shorter",
) -> GradientTransformation:
    """GaLore: ``p <- p - learning_rate (scale P N + weight_decay p)``.

    The whole parameter decays. The authors' code decays it after the step instead, by
    ``lr wd (p - lr u)``.

    Args:
      learning_rate: The step size, >= 0; 0.01 in the paper, with a scale of 0.25.
      rank, update_proj_gap, scale, base_optimizer: See `scale_by_galore`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      side: See `scale_by_galore`.

    Returns:
      A transformation, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range, or the base optimizer needs params.

    Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank
    projection", 2024.

    >>> import jopt
    >>> jopt.galore(0.01, rank=256, scale=0.25)
    galore(learning_rate=0.01, rank=256, scale=0.25)
    """
    members: Any = chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, side=side),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    # scale_by_galore is not leafwise, so a chain would round its updates to the
    # gradient's dtype before the weight decay is added.
    return widened(members)
