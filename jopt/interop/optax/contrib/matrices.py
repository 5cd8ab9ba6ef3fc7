"""Optimizers of matrices of ``optax.contrib``: Muon and GaLore."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt import tree
from jopt.algorithms.adam import momentum_terms
from jopt.algorithms.galore import project, unproject
from jopt.algorithms.matrices import shape_factor
from jopt.algorithms.polar import PRESETS, Start, orthogonalize
from jopt.core.leaves import wide
from jopt.interop.optax.base import (
    MaskOrFn,
    Numeric,
    Pair,
    ScalarOrSchedule,
    as_pair,
    chain,
    lenient,
    own,
    without_state,
)
from jopt.interop.optax.masking import partition
from jopt.interop.optax.optimizers import adamw
from jopt.interop.optax.scaling import (
    add_decayed_weights,
    scale_by_adam,
    scale_by_learning_rate,
)
from jopt.values import arguments


# Axes of matrices.


class MuonDimensionNumbers(NamedTuple):
    """The axes of a leaf that are inputs and outputs; the others count matrices."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


class GaLoreDimensionNumbers(NamedTuple):
    """The axes of a leaf that are inputs and outputs: all of them."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


def _of_leaves(dimensions: Any, whole: Any) -> list[Any]:
    """Return the dimension numbers of each leaf, or None.

    Args:
      dimensions: A tree of dimension numbers and Nones, or a prefix of one, or a
        function that returns one for a tree.
      whole: The tree.
    """
    if callable(dimensions):
        dimensions = dimensions(whole)
    each, treedef = jax.tree.flatten(dimensions, is_leaf=_is_dimensions)
    parts = treedef.flatten_up_to(whole)
    return [
        numbers
        for numbers, part in zip(each, parts, strict=True)
        for _ in jax.tree.leaves(part)
    ]


def _is_dimensions(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers | GaLoreDimensionNumbers)


def _inputs_and_outputs(
    numbers: Any, shape: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """Return the positions of the axes that are inputs, and of those that are outputs.

    Raises:
      ValueError: There are fewer than two axes, or one of them is on both sides.
    """
    n = len(shape)
    if n < 2:
        raise ValueError(
            f"a matrix needs two or more axes, got a leaf of shape {shape} with "
            f"{numbers}. Give None for leaves that are not matrices"
        )
    inputs, outputs = (
        [axis % n for axis in np.atleast_1d(axes).tolist()] for axes in numbers
    )
    if {*inputs} & {*outputs}:
        raise ValueError(
            f"an axis is an input or an output, not both, got {numbers} for a leaf of "
            f"shape {shape}"
        )
    return inputs, outputs


# Muon.


_COEFFICIENTS = PRESETS["standard"][1][0]
_STARTS: dict[str, Start] = {
    "frobenius": "divide",
    "spectral": "spectral",
    "aol": "aol",
    "schatten": "schatten",
}


class MuonState(NamedTuple):
    """State of `scale_by_muon`."""

    count: Any
    mu: Any
    ns_coeffs: Any


def _letters(numbers: Any, shape: tuple[int, ...]) -> str:
    """Return the layout of a leaf, see `jopt.algorithms.matrices.Axes`."""
    inputs, outputs = _inputs_and_outputs(numbers, shape)
    sides = dict.fromkeys(inputs, "i") | dict.fromkeys(outputs, "o")
    return "".join(sides.get(axis, "b") for axis in range(len(shape)))


@lenient
def scale_by_muon(
    ns_coeffs: Any = _COEFFICIENTS,
    ns_steps: int = 5,
    beta: Numeric = 0.95,
    eps: Numeric = 1e-8,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    weight_dimension_numbers: Any = None,
) -> Pair:
    """Orthogonalize the momentum, without the scale of `jopt.scale_by_muon`.

    Args:
      ns_coeffs: One triple (a, b, c), or one for each step.
      ns_steps: The number of steps with one triple; at least that of several triples.
      beta: Decay of the momentum, whose bias is corrected, as in `scale_by_adam`.
      eps: Added to the norm.
      mu_dtype: Dtype of ``mu``; None means that of the parameters.
      nesterov: Whether to look ahead, as in `scale_by_adam`.
      adaptive: Whether to multiply by the inner product of update and momentum.
      preconditioning: What the matrices are divided by first: the norm
        ``"frobenius"``, ``"spectral"`` or ``"schatten"``, or ``"aol"``, a number for
        each row.
      weight_dimension_numbers: A tree of `MuonDimensionNumbers`, or a prefix of one, or
        a function that returns one; None means matrices of two axes.

    Returns:
      A transformation.

    Raises:
      ValueError: ``preconditioning`` is unknown, or ``ns_coeffs`` are not triples or
        too many; from ``update``, a leaf is not a matrix.
    """
    arguments.one_of(tuple(_STARTS), preconditioning=preconditioning)
    dimensions = weight_dimension_numbers
    if dimensions is None:
        dimensions = MuonDimensionNumbers()
    # A start by rows has no use for eps but as the bound of what it takes a root of.
    bound = eps if preconditioning in ("frobenius", "spectral") else 1e-8

    def init(params):
        triples = jnp.asarray(ns_coeffs)
        if triples.ndim not in (1, 2) or triples.shape[-1] != 3:
            raise ValueError(
                "ns_coeffs must be a triple (a, b, c), or a sequence of triples, got "
                f"an array of shape {triples.shape}"
            )
        if triples.ndim == 2 and len(triples) > ns_steps:
            raise ValueError(
                f"ns_coeffs has {len(triples)} triples, but ns_steps is {ns_steps}"
            )
        count = jnp.zeros((), jnp.int32)
        return MuonState(count, tree.zeros_like(params, mu_dtype), triples)

    def layout(numbers, shape):
        return "io" if len(shape) == 2 else _letters(numbers, shape)

    def update(updates, state, params=None, **extra_args):
        count = tree.safe_increment(state.count)
        mu = tree.update_moment(updates, jax.tree.map(wide, state.mu), beta, 1)
        terms = momentum_terms(beta, tree.scalar(count), nesterov)
        directions = tree.add_scale(
            tree.scale(terms["mu_scale"], mu), terms["g_scale"], updates
        )
        leaves, treedef = jax.tree.flatten(directions)
        each = zip(_of_leaves(dimensions, updates), leaves, strict=True)
        triples = state.ns_coeffs
        if triples.ndim == 1:
            triples = jnp.broadcast_to(triples, (ns_steps, 3))
        new = orthogonalize(
            leaves,
            [layout(numbers, x.shape) for numbers, x in each],
            triples,
            eps=bound,
            start=_STARTS[preconditioning],
        )
        if adaptive:
            new = [jnp.vdot(u, o) * o for u, o in zip(leaves, new, strict=True)]
        new = tree.cast_like(treedef.unflatten(new), updates)
        return new, state._replace(count=count, mu=tree.cast_like(mu, state.mu))

    return own(init, update)


def _scale_by_shape(dimensions: Any, consistent_rms: Any) -> Pair:
    """Multiply by the factor that belongs to the shape of a matrix."""

    def scaled(updates, params):
        leaves, treedef = jax.tree.flatten(updates)
        each = zip(_of_leaves(dimensions, updates), leaves, strict=True)
        new = []
        for numbers, x in each:
            letters = _letters(numbers, x.shape)
            factor = shape_factor(letters, x.shape, "kj", consistent_rms)
            new.append(jnp.asarray(factor, x.dtype) * x)
        return treedef.unflatten(new)

    return without_state(jopt.stateless(scaled))


def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Any = _COEFFICIENTS,
    ns_steps: int = 5,
    beta: Numeric = 0.95,
    eps: float = 1e-8,
    weight_decay: Numeric = 0.0,
    weight_decay_mask: MaskOrFn = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    adam_eps_root: float = 0.0,
    adam_weight_decay: Numeric = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: Numeric | None = None,
) -> Pair:
    """Muon for the leaves of two axes, AdamW for the others; see `jopt.muon`.

    Args:
      learning_rate: Step size.
      ns_coeffs: One triple (a, b, c), one for each step, ``"standard"`` or ``"dion"``.
      ns_steps, beta: See `scale_by_muon`.
      eps: Added to the norm; AdamW's ``eps`` too.
      weight_decay: Decay coefficient of Muon's leaves.
      weight_decay_mask: Which of them to decay.
      mu_dtype, nesterov: See `scale_by_muon`.
      adaptive, preconditioning: See `scale_by_muon`.
      adam_b1: ``b1`` of AdamW.
      adam_b2: ``b2`` of AdamW.
      adam_eps_root: ``eps_root`` of AdamW.
      adam_weight_decay: Decay coefficient of AdamW's leaves.
      adam_learning_rate: AdamW's step size; None means ``learning_rate``.
      muon_weight_dimension_numbers: A tree of `MuonDimensionNumbers`, with None for
        AdamW's leaves, or a prefix of one, or a function that returns one.
      consistent_rms: See `jopt.scale_by_muon`.

    Returns:
      A transformation: a `partition` into ``"muon"`` and ``"adam"``.

    Raises:
      ValueError: ``ns_coeffs`` is another name; see `scale_by_muon` too.

    >>> from jopt.interop import optax
    >>> tx = optax.contrib.muon(0.02)
    >>> state = tx.init({"b": jnp.ones(2), "w": jnp.ones((2, 2))})
    >>> state.inner_states["muon"].inner_state[0].mu["b"]
    MaskedNode()
    """
    if isinstance(ns_coeffs, str):
        arguments.one_of(("standard", "dion"), ns_coeffs=ns_coeffs)
        triples = PRESETS[ns_coeffs][1]
        ns_coeffs = triples[0] if len(triples) == 1 else triples
    dimensions = muon_weight_dimension_numbers
    default = MuonDimensionNumbers() if dimensions is None else dimensions

    def labels(params):
        leaves, treedef = jax.tree.flatten(params)
        if dimensions is None:
            chosen = [jnp.ndim(x) == 2 for x in leaves]
        else:
            chosen = [x is not None for x in _of_leaves(dimensions, params)]
        return treedef.unflatten("muon" if on else "adam" for on in chosen)

    orthogonal = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        adaptive=adaptive,
        preconditioning=preconditioning,
        weight_dimension_numbers=default,
    )
    for_matrices = chain(
        orthogonal,
        _scale_by_shape(default, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    for_others = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        nesterov=nesterov,
    )
    return partition({"muon": for_matrices, "adam": for_others}, labels)


# GaLore.


class GaLoreState(NamedTuple):
    """State of `scale_by_galore`."""

    count: Any
    base_optimizer_state: Any
    projector: Any


class _Matrix(NamedTuple):
    """How a leaf is a matrix, and the side that is projected."""

    size: tuple[int, int]
    to: Callable[[Any], Any]
    back: Callable[[Any], Any]
    left: bool
    rank: int


def _matrix(
    numbers: GaLoreDimensionNumbers, shape: tuple[int, ...], rank: int
) -> _Matrix:
    inputs, outputs = _inputs_and_outputs(numbers, shape)
    order = inputs + outputs
    if len(order) < len(shape):
        raise ValueError(
            f"each axis must be an input or an output, got {numbers} for a leaf of "
            f"shape {shape}"
        )
    size = m, n = (
        math.prod(shape[i] for i in inputs),
        math.prod(shape[i] for i in outputs),
    )
    ordered = [shape[i] for i in order]
    return _Matrix(
        size,
        lambda x: x.transpose(order).reshape(size),
        lambda x: x.reshape(ordered).transpose(np.argsort(order).tolist()),
        m >= n,
        min(rank, m, n),
    )


@lenient
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: float = 1.0,
    base_optimizer: Any = None,
    weight_dimension_numbers: Any = None,
) -> Pair:
    """Show a transformation projected matrices, see `jopt.scale_by_galore`.

    The longer side is projected, by the singular vectors as they are: their signs do
    not follow those of their predecessors.

    Args:
      rank, update_proj_gap, scale: See `jopt.scale_by_galore`.
      base_optimizer: A transformation that does not need params; None means
        `scale_by_adam`.
      weight_dimension_numbers: One `GaLoreDimensionNumbers` for all leaves of two or
        more axes; or a tree of them with None for leaves that are not projected, or a
        function that returns one. None means the leaves of two axes.

    Returns:
      A transformation.

    Raises:
      TypeError: ``rank`` is not an integer.
      ValueError: ``rank`` is not positive; from ``init``, a leaf is not a matrix.
    """
    if not isinstance(rank, int):
        raise TypeError(f"rank must be an integer, got {type(rank).__name__}")
    if rank <= 0:
        raise ValueError(f"rank must be positive, got {rank}")
    dimensions = weight_dimension_numbers
    if base_optimizer is None:
        base = scale_by_adam()
    else:
        base = as_pair(base_optimizer, "scale_by_galore: base_optimizer")

    def matrices(whole):
        leaves = jax.tree.leaves(whole)
        if dimensions is None or isinstance(dimensions, GaLoreDimensionNumbers):
            numbers = dimensions or GaLoreDimensionNumbers()
            each = [
                numbers
                if jnp.ndim(x) == 2 or (dimensions and jnp.ndim(x) > 2)
                else None
                for x in leaves
            ]
        else:
            each = _of_leaves(dimensions, whole)
        return [
            None if numbers is None else _matrix(numbers, jnp.shape(x), rank)
            for numbers, x in zip(each, leaves, strict=True)
        ]

    def init(params):
        leaves, treedef = jax.tree.flatten(params)
        projectors, projected = [], []
        for x, matrix in zip(leaves, matrices(params), strict=True):
            dtype, shape, low = jnp.result_type(x), (0, 0), jnp.shape(x)
            if matrix is not None:
                m, n = matrix.size
                shape = (m if matrix.left else n, matrix.rank)
                low = (matrix.rank, n) if matrix.left else (m, matrix.rank)
            projectors.append(jnp.zeros(shape, dtype))
            projected.append(jnp.zeros(low, dtype))
        return GaLoreState(
            jnp.zeros((), jnp.int32),
            base.init(treedef.unflatten(projected)),
            treedef.unflatten(projectors),
        )

    def update(updates, state, params=None, **extra_args):
        leaves, treedef = jax.tree.flatten(updates)
        due = state.count % update_proj_gap == 0
        projected, projectors = [*leaves], treedef.flatten_up_to(state.projector)
        all_matrices = matrices(updates)
        for i, matrix in enumerate(all_matrices):
            if matrix is not None:
                g = leaves[i] = matrix.to(leaves[i])
                low, projectors[i] = project(
                    g,
                    projectors[i],
                    due,
                    matrix.left,
                    keep_signs=False,
                    svd_dtype=jnp.float32,
                )
                projected[i] = low.astype(g.dtype)
        new, base_state = base.update(
            treedef.unflatten(projected), state.base_optimizer_state
        )
        new = treedef.flatten_up_to(new)
        for i, matrix in enumerate(all_matrices):
            if matrix is not None:
                u = unproject(new[i], projectors[i], scale, leaves[i], matrix.left)
                new[i] = matrix.back(u)
        return treedef.unflatten(new), state._replace(
            count=tree.safe_increment(state.count),
            base_optimizer_state=base_state,
            projector=treedef.unflatten(projectors),
        )

    return own(init, update)


def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: float = 1.0,
    base_optimizer: Any = None,
    weight_decay: Numeric = 0.0,
    mask: MaskOrFn = None,
    weight_dimension_numbers: Any = None,
) -> Pair:
    """GaLore, see `scale_by_galore` and `jopt.galore`."""
    return chain(
        scale_by_galore(
            rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
