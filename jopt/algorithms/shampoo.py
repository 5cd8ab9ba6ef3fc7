"""Shampoo: inverse roots of Kronecker factors, with the step size of another method.

    L <- b2 L + (1 - b2) G G^T,   R <- b2 R + (1 - b2) G^T G
    m <- b1 m + (1 - b1) G
    s <- (L^ + epsilon I)^(-1/p) m^ (R^ + epsilon I)^(-1/p)
    u <- s |a| / |s|     where a is Adam's update, or that of another method

Gupta et al., "Shampoo: preconditioned stochastic tensor optimization", 2018. Grafting
and blocks: Anil et al., "Scalable second order optimization for deep learning", 2020;
Shi et al., "A distributed data-parallel PyTorch implementation of the distributed
Shampoo optimizer for training neural networks at-scale", 2023.

Roots are computed every few steps, which take turns, by an eigendecomposition or a
Newton iteration in float32 or wider. Shampoo won the first AlgoPerf competition.
Settings: those of the method that it is grafted to, with a learning rate of its own.

State: ``8 + 8 (m^2 + n^2) / (m n)`` bytes per float32 parameter of an (m, n) matrix,
and 4 less if it is grafted to SGD or to nothing.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jopt import tree
from jopt.algorithms.adam import adamw
from jopt.algorithms.eigenbases import average, averaged
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.kronecker import (
    Sides,
    Which,
    gram,
    inverse_root,
    newton_root,
    rotated,
)
from jopt.algorithms.matrices import Axes, check_range
from jopt.algorithms.matrixwise import KEEP, Method, PerSide, Row, matrixwise
from jopt.algorithms.stacks import split, spread, stacked
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree import one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


Graft: TypeAlias = Literal["sgd", "adagrad", "rmsprop", "adam"]
RootMethod: TypeAlias = Literal["eigh", "newton"]


class ScaleByShampooState(NamedTuple):
    """State of `scale_by_shampoo`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # the graft's sum or average of squares, like params; None without
    statistics: Any  # for each side, (blocks, d, d); None for other leaves
    roots: Any  # for each side, the inverse root, like the statistics


@transformation
def scale_by_shampoo(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-12,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    relative_eps: ScalarOrSchedule = 1e-6,
    rank_rtol: float | None = None,
    p: float | None = None,
    root_method: RootMethod = "eigh",
    graft: Graft | None = "adam",
    graft_b2: ScalarOrSchedule | None = None,
    graft_eps: ScalarOrSchedule = 1e-8,
    start_step: int | None = None,
    precondition_frequency: int = 10,
    block_size: int | None = 1024,
    sides: Which = "both",
    bias_correction: bool = True,
    staggered: bool = True,
    axes: Axes = None,
    merge_axes: bool = True,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Precondition the momentum by inverse roots, and give it another method's norm.

    Leaves with fewer than two axes get the update of ``graft``, or their momentum.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the statistics, in [0, 1]; 1 sums them up, as in the paper.
      eps: Added to the eigenvalues of the statistics, >= 0.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider.
      precond_dtype: Storage dtype of statistics and roots; see `scale_by_soap`.
      relative_eps: Multiple of the largest eigenvalue that is added as well, >= 0.
      rank_rtol: If given, directions with an eigenvalue of at most this multiple of the
        largest, >= 0, are left out (pseudo-inverse). Use it with ``eps=0`` and
        ``relative_eps=0``, where gradients miss directions, as those of ReLUs do.
      p: The root, > 0: factors have the exponent -1/p. None means 4 for matrices with
        statistics of both sides, 2 with those of one; 2 for each axis in general.
      root_method: How roots are computed: ``"eigh"`` by a decomposition, ``"newton"``
        by a coupled Newton iteration. That needs only products of matrices, which TPUs
        and large batches of blocks are good at, and a whole p.
      graft: The method whose norm the update of each block has: ``"sgd"`` (momentum),
        ``"adagrad"``, ``"rmsprop"`` or ``"adam"``. None leaves the norm as it is.
      graft_b2: Decay of the graft's squares, in [0, 1); None means ``b2``.
      graft_eps: Added to the graft's root, >= 0.
      start_step: The first step with roots, >= 1; the ones before are those of
        ``graft``. None means ``precondition_frequency``.
      precondition_frequency: Steps from one computation of a root to the next, >= 1.
      block_size: Longer sides are cut into equal blocks, which are preconditioned one
        by one, >= 1. None means no limit.
      sides: ``"smaller"`` gives statistics to the shorter side of each matrix only.
      bias_correction: Whether to correct the averages for their start at zero.
      staggered: Whether stacks of matrices take turns, see `scale_by_soap`.
      axes, merge_axes, mesh_axis: See `scale_by_soap`.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a leaf of three
        or more axes is a matrix.

    Gupta et al., "Shampoo: preconditioned stochastic tensor optimization", 2018. Equal
    to Meta's DistributedShampoo for leaves that ``block_size`` divides, with
    ``relative_eps=0, staggered=False, merge_axes=False`` and its perturbation after the
    decomposition. A root that is not finite is not used, and its predecessor kept.

    >>> import jopt
    >>> tx, g = jopt.scale_by_shampoo(start_step=1), jnp.array([[3.0, 0], [0, 0.1]])
    >>> tx.update(g, tx.init(g))[0].round(2)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    arguments.decay_rate(b1=b1)
    arguments.fraction(b2=b2)
    check_range(precond_dtype)
    if graft_b2 is not None:
        arguments.decay_rate(graft_b2=graft_b2)
    arguments.nonnegative(eps=eps, relative_eps=relative_eps, graft_eps=graft_eps)
    if p is not None:
        arguments.positive(p=p)
    arguments.one_of(("eigh", "newton"), root_method=root_method)
    if rank_rtol is not None:
        arguments.nonnegative(rank_rtol=rank_rtol)
    if root_method == "newton":
        if rank_rtol is not None:
            raise ValueError(
                "rank_rtol needs eigenvalues, which root_method='newton' does not "
                "compute. Use relative_eps, or root_method='eigh'"
            )
        if p is not None:
            p = arguments.whole("p", p)
    arguments.one_of(("sgd", "adagrad", "rmsprop", "adam", None), graft=graft)
    arguments.at_least(1, precondition_frequency=precondition_frequency)
    start = precondition_frequency if start_step is None else start_step
    arguments.at_least(1, start_step=start)
    if block_size is not None:
        arguments.at_least(1, block_size=block_size)
    arguments.one_of(("both", "smaller"), sides=sides)
    squares = graft in ("adagrad", "rmsprop", "adam")
    decay = b2 if graft_b2 is None else graft_b2

    def numbers(count):
        t = (count + 1).astype(float)

        def scale(b):  # of an average that starts at zero; a sum needs none
            if isinstance(b, float) and b == 1:
                return 1.0
            corrected = one_minus_power(jnp.where(b == 1, 0, b), t)
            return jnp.where(b == 1, 1.0, 1 / corrected)

        given = {
            **{"b1": b1, "b1_rest": 1 - b1, "mu_scale": 1.0, "scale": 1.0},
            **{"beta": b2, "beta_rest": _weight(b2), "eps": eps},
            **{"relative": relative_eps, "graft_eps": graft_eps},
            **{"b2": 1.0, "b2_rest": 1.0, "nu_scale": 1.0},
            "started": count >= start - 1,
        }
        if bias_correction:
            given |= {"mu_scale": 1 / one_minus_power(b1, t), "scale": scale(b2)}
        if graft in ("rmsprop", "adam"):
            given |= {"b2": decay, "b2_rest": _weight(decay)}
        if graft == "adam":
            given |= {"nu_scale": scale(decay)}
        return given

    method = Method(
        "scale_by_shampoo",
        _shampoo,
        ScaleByShampooState,
        {
            "mu": zeros(mu_dtype),
            "nu": zeros(nu_dtype, divides=True, over=None if squares else _nowhere),
            "statistics": PerSide(0.0, dtype=precond_dtype),
            "roots": PerSide(None, dtype=precond_dtype),
        },
        axes,
        2**31 if block_size is None else block_size,
        sides,
        merge_axes,
        block_size,
        every=precondition_frequency,
        first=start - 1,
        shift=1,
        staggered=staggered,
        mesh_axis=mesh_axis,
    )
    return matrixwise(
        method, numbers, p=p, graft=graft, rank_rtol=rank_rtol, root_method=root_method
    )


def _weight(b2: Any) -> Any:
    """Return the weight of what is new in an average, or 1 in a sum."""
    if isinstance(b2, float):
        return 1.0 if b2 == 1 else 1 - b2
    return jnp.where(b2 == 1, 1, 1 - b2)


def _nowhere(_: tuple[int, ...]) -> None:
    """The axes of a slot that no leaf has."""


def _shampoo(
    rows: list[Row],
    phase: jax.Array,
    numbers: dict[str, jax.Array],
    sides: Sides,
    mesh_axis: str | None,
    *,
    p: float | None,
    graft: Graft | None,
    rank_rtol: float | None,
    root_method: RootMethod,
) -> list[Row]:
    x = numbers
    new: list[Row] = []
    for row in rows:
        mu = x["b1"] * row["mu"] + x["b1_rest"] * row["g"]
        nu, magnitude = row["nu"], x["mu_scale"] * mu
        if nu is not None:
            nu = x["b2"] * nu + x["b2_rest"] * row["g"] ** 2
            # A square of zero has no derivative under a root.
            divisor = jnp.where(nu > 0, jnp.sqrt(jnp.where(nu > 0, nu, 1)), 0)
            divisor = jnp.sqrt(x["nu_scale"]) * divisor + x["graft_eps"]
            magnitude = ratio(magnitude, divisor, x["graft_eps"])
        same = {"statistics": row["statistics"], "roots": row["roots"]}
        new.append({**same, "mu": mu, "nu": nu, "u": magnitude})
    if not any(sides.kept):
        return new
    power = 2 * sum(sides.kept) if p is None else p

    def grams(g):
        return tuple(gram(g, i) if kept else None for i, kept in enumerate(sides.kept))

    def root_of(s, old):
        # A scale that is common to all, so that eps is that of averages.
        s, eps, relative = x["scale"] * s, x["eps"], x["relative"]
        if root_method == "newton":
            return newton_root(s, power, eps, relative, old)
        return inverse_root(s, 1 / power, eps, relative, old, rank_rtol)

    def rooted(rows):
        row = stacked(rows)
        # Once more, so that other steps leave the statistics where they are kept.
        statistics = average(row["statistics"], grams(row["g"]), numbers)
        return split(jax.tree.map(root_of, statistics, row["roots"]), len(rows))

    def step(rows):
        row = stacked(rows)
        u = rotated(row["m"], row["roots"])
        if graft is not None:
            magnitude = row.get("magnitude", row["m"])
            u = jnp.where(x["started"] > 0, grafted(u, magnitude), magnitude)
        return split({"u": u, "grams": grams(row["g"])}, len(rows))

    def renewed(roots, seen):
        given = [
            {"g": g, "statistics": s, "roots": old}
            for old, (g, s) in zip(roots, seen, strict=True)
        ]
        return spread(rooted, given, mesh_axis)

    # The roots are constants to autodiff: no decomposition is differentiated.
    seen = [lax.stop_gradient((row["g"], row["statistics"])) for row in rows]
    roots = [row["roots"] for row in rows]
    roots = lax.cond(phase == KEEP, lambda roots, _: roots, renewed, roots, seen)
    given = [
        {"g": row["g"], "m": x["mu_scale"] * of["mu"], "roots": root}
        for row, of, root in zip(rows, new, roots, strict=True)
    ]
    if graft not in (None, "sgd"):
        given = [
            {**x, "magnitude": row["u"]} for x, row in zip(given, new, strict=True)
        ]
    results = spread(step, given, mesh_axis)
    for row, root, result in zip(new, roots, results, strict=True):
        row.update(result, roots=root)
    averaged(rows, new, numbers)
    return new


def grafted(direction: jax.Array, magnitude: jax.Array) -> jax.Array:
    """Return the direction of one update with the norm of another, for each matrix.

    >>> grafted(jnp.array([[[3.0, 4.0]]]), jnp.array([[[0.0, 10.0]]]))
    Array([[[6., 8.]]], dtype=float32)
    """
    axes = tuple(range(1, direction.ndim))
    norms = tree.norm_along(magnitude, axes), tree.norm_along(direction, axes)
    return direction * ratio(*norms)


@transformation
def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    relative_eps: ScalarOrSchedule = 1e-6,
    rank_rtol: float | None = None,
    p: float | None = None,
    root_method: RootMethod = "eigh",
    graft: Graft | None = "adam",
    graft_b2: ScalarOrSchedule | None = None,
    graft_eps: ScalarOrSchedule = 1e-8,
    start_step: int | None = None,
    precondition_frequency: int = 10,
    block_size: int | None = 1024,
    sides: Which = "both",
    bias_correction: bool = True,
    staggered: bool = True,
    hidden: Mask = None,
    axes: Axes = None,
    merge_axes: bool = True,
    mesh_axis: str | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """Shampoo for the hidden matrices, AdamW for everything else.

        p <- p - learning_rate (u + weight_decay p)

    ``u`` has the direction of the momentum between two inverse roots, and the norm of
    Adam's update. Google's settings: ``graft="adagrad", start_step=101,
    precondition_frequency=100, root_method="newton"``. Meta's defaults: ``b2=1.0,
    graft=None, relative_eps=0.0, precondition_frequency=1``. One-sided Shampoo:
    ``sides="smaller"``, in the NanoGPT speedruns with a pseudo-inverse,
    ``rank_rtol=0.0, eps=0.0, relative_eps=0.0``.

    Args:
      learning_rate: Step size of the hidden matrices, >= 0; that of AdamW, if grafted
        to Adam.
      b1, b2, eps: See `scale_by_shampoo`.
      weight_decay: Decoupled decay of the hidden matrices, >= 0, multiplied by the
        learning rate.
      weight_decay_mask: The hidden matrices to decay; see `jopt.Mask`.
      mu_dtype: Storage dtype of the first moments; None means float32 or wider.
      nu_dtype, precond_dtype, relative_eps, rank_rtol, p: See `scale_by_shampoo`.
      root_method, graft, graft_b2, graft_eps: See `scale_by_shampoo`.
      start_step, precondition_frequency, block_size: See `scale_by_shampoo`.
      sides, bias_correction: See `scale_by_shampoo`.
      staggered: See `scale_by_soap`.
      hidden: The leaves for Shampoo; see `soap`.
      axes, merge_axes, mesh_axis: See `scale_by_soap`.
      adam_learning_rate, adam_b1, adam_b2, adam_eps, adam_weight_decay: See `soap`.

    Returns:
      A `partition` into ``"shampoo"`` and ``"adam"``, for real numbers; it needs
      params.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a hidden leaf
        of three or more axes is a matrix.

    Gupta et al., "Shampoo: preconditioned stochastic tensor optimization", 2018. Equal
    to Meta's DistributedShampoo, see `scale_by_shampoo`.

    >>> import jopt
    >>> tx = jopt.shampoo(1e-3, block_size=2)
    >>> state = tx.init({"hidden": jnp.ones((4, 2))})["shampoo"]["scale_by_shampoo"]
    >>> [x["hidden"].shape for x in state.roots]
    [(2, 2, 2), (2, 2, 2)]
    """
    preconditioned = scale_by_shampoo(
        b1,
        b2,
        eps,
        mu_dtype,
        nu_dtype=nu_dtype,
        precond_dtype=precond_dtype,
        relative_eps=relative_eps,
        rank_rtol=rank_rtol,
        p=p,
        root_method=root_method,
        graft=graft,
        graft_b2=graft_b2,
        graft_eps=graft_eps,
        start_step=start_step,
        precondition_frequency=precondition_frequency,
        block_size=block_size,
        sides=sides,
        bias_correction=bias_correction,
        staggered=staggered,
        axes=axes,
        merge_axes=merge_axes,
        mesh_axis=mesh_axis,
    )
    return for_hidden(
        "shampoo",
        chain(
            preconditioned,
            add_decayed_weights(weight_decay, weight_decay_mask),
            scale_by_learning_rate(learning_rate),
        ),
        adamw(
            learning_rate if adam_learning_rate is None else adam_learning_rate,
            adam_b1,
            adam_b2,
            adam_eps,
            mu_dtype=mu_dtype,
            weight_decay=adam_weight_decay,
            nu_dtype=nu_dtype,
        ),
        hidden,
    )
