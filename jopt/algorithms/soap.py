"""SOAP: Adam in the eigenbasis of Shampoo's statistics.

    G' <- Q_L^T G Q_R
    m <- b1 m + (1 - b1) G',   v <- b2 v + (1 - b2) G'^2
    u <- Q_L (m^ / (sqrt(v^) + eps)) Q_R^T
    L <- beta L + (1 - beta) G G^T,   R <- beta R + (1 - beta) G^T G

The first step decomposes L and R, and moves no parameter. Every few steps, one step of
orthogonal iteration and a QR decomposition bring Q_L and Q_R up to date.

Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", 2024. KL-SOAP
measures a matrix's sides after whitening the other side: Lin et al., "Understanding and
improving the Shampoo optimizer via Kullback-Leibler minimization", 2025.

Adam's second moment is a good preconditioner where the loss varies along the axes;
SOAP turns them to where it does. It is the fastest per step on many problems, and its
steps cost about as much as Muon's. Settings: AdamW's learning rate and weight decay, or
a learning rate of 3e-3, with some warmup.

State: ``8 + 8 (m^2 + n^2) / (m n)`` bytes per float32 parameter of an (m, n) matrix, 24
if it is square.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import adamw
from jopt.algorithms.eigenbases import averaged, refresh_bases, updated_kl
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.kronecker import Sides, Which, gram, rotated
from jopt.algorithms.matrices import Axes, check_range
from jopt.algorithms.matrixwise import Method, PerSide, Row, matrixwise
from jopt.algorithms.stacks import split, spread, stacked
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.weight_decay import step_then_decay
from jopt.tree import one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


Statistics: TypeAlias = Literal["shampoo", "kl"]


class ScaleBySoapState(NamedTuple):
    """State of `scale_by_soap`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment in the basis, like params
    nu: Any  # second moment in the basis, like params
    statistics: Any  # for each side, (matrices, d, d); None for other leaves
    bases: Any  # for each side, eigenvectors as columns, like the statistics
    eigenvalues: Any = None  # for each side, (matrices, d), with KL's statistics


@transformation
def scale_by_soap(
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    shampoo_beta: ScalarOrSchedule | None = None,
    precondition_frequency: int = 10,
    max_dim: int = 10_000,
    sides: Which = "both",
    statistics: Statistics = "shampoo",
    bias_correction: bool = True,
    staggered: bool = True,
    axes: Axes = None,
    merge_axes: bool = True,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Run Adam in the eigenbasis of Shampoo's statistics.

    Leaves with fewer than two axes get Adam, and so do matrices with both sides too
    long. The first update is zero everywhere.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      eps: Added to the root of the uncorrected second moment, >= 0.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider.
      precond_dtype: Storage dtype of statistics and bases; None means float32 or wider,
        in which they are computed in any case. bfloat16 suits decays up to 0.99.
      shampoo_beta: Decay of the statistics, in [0, 1); None means ``b2``.
      precondition_frequency: Steps from one refresh of a basis to the next, >= 1.
      max_dim: Longer sides are not rotated, >= 1; the vocabulary's, for instance.
      sides: ``"smaller"`` rotates only the shorter side of each matrix, which saves
        state and time.
      statistics: ``"shampoo"``, or ``"kl"`` for KL-SOAP, whose bases are not sorted.
      bias_correction: Whether to correct the moments for their start at zero.
      staggered: Whether stacks of matrices take turns, so that no step but the first
        refreshes all bases. What a basis is refreshed to does not depend on it, but the
        step at which it is does: on the number of stacks.
      axes: The matrix layout of the leaves, as for `scale_by_muon`.
      merge_axes: Whether the axes of one letter are one side. Else each axis of a
        kernel has a basis of its own, as in the authors' code.
      mesh_axis: Name of an axis of the mesh set by ``jax.set_mesh``. The matrices are
        spread over it, so that each device works on whole matrices.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a leaf of three
        or more axes is a matrix.

    Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", 2024. Equal to
    their code with ``staggered=False, merge_axes=False``, and to KL-SOAP's with
    ``statistics="kl", bias_correction=False`` besides.

    >>> import jopt
    >>> tx, g = jopt.scale_by_soap(), jnp.ones((4, 2))
    >>> updates, state = tx.update(g, tx.init(g))
    >>> updates.any(), [x.shape for x in state.bases]
    (Array(False, dtype=bool), [(1, 4, 4), (1, 2, 2)])
    """
    arguments.decay_rate(b1=b1, b2=b2)
    check_range(precond_dtype)
    if shampoo_beta is not None:
        arguments.decay_rate(shampoo_beta=shampoo_beta)
    arguments.nonnegative(eps=eps)
    arguments.at_least(1, precondition_frequency=precondition_frequency)
    arguments.at_least(1, max_dim=max_dim)
    arguments.one_of(("both", "smaller"), sides=sides)
    arguments.one_of(("shampoo", "kl"), statistics=statistics)
    beta = b2 if shampoo_beta is None else shampoo_beta
    kl = statistics == "kl"

    def numbers(count):
        t = jnp.maximum(count, 1).astype(float)
        corrections = one_minus_power(b1, t), one_minus_power(b2, t)
        scale = jnp.sqrt(corrections[1]) / corrections[0] if bias_correction else 1.0
        # `1 - b1` is formed here, while b1 may still be a Python double.
        return {
            **{"b1": b1, "b1_rest": 1 - b1, "b2": b2, "b2_rest": 1 - b2},
            **{"beta": beta, "beta_rest": 1 - beta, "eps": eps, "scale": scale},
            # The first step is not one of Adam's. The count alone tells it, because XLA
            # repeats what leads to a number in each kernel that takes it.
            "started": (count > 0).astype(float),
        }

    method = Method(
        "scale_by_soap",
        _soap,
        ScaleBySoapState,
        {
            "mu": zeros(mu_dtype),
            "nu": zeros(nu_dtype, divides=True),
            "statistics": PerSide(0.0, dtype=precond_dtype),
            "bases": PerSide(None, dtype=precond_dtype),
            **({"eigenvalues": PerSide(0.1, square=False)} if kl else {}),
        },
        axes,
        max_dim,
        sides,
        merge_axes,
        every=precondition_frequency,
        staggered=staggered,
        mesh_axis=mesh_axis,
    )
    return matrixwise(method, numbers, kl=kl)


def _soap(
    rows: list[Row],
    phase: jax.Array,
    numbers: dict[str, jax.Array],
    sides: Sides,
    mesh_axis: str | None,
    *,
    kl: bool,
) -> list[Row]:
    del sides
    x, started = numbers, numbers["started"]

    def step(rows):
        bases = stacked([row["bases"] for row in rows])
        g = stacked([row["g"] for row in rows])
        new = []
        seen_by = split(started * rotated(g, bases), len(rows))
        for row, seen in zip(rows, seen_by, strict=True):
            mu = x["b1"] * row["mu"] + x["b1_rest"] * seen
            nu = x["b2"] * row["nu"] + x["b2_rest"] * seen**2
            # At first nu is 0, where the root has no derivative.
            root = jnp.sqrt(nu + (1 - started)) + x["eps"]
            u = x["scale"] * ratio(mu, root, x["eps"])
            new.append({"mu": mu, "nu": nu, "u": u})
        u = rotated(stacked([row["u"] for row in new]), bases, back=True)
        if kl:
            grams = updated_kl(rows, new, g, bases, started, numbers)
        else:
            grams = [None if q is None else gram(g, i) for i, q in enumerate(bases)]
        results = split({"u": u, "grams": tuple(grams)}, len(rows))
        return [{**row, **part} for row, part in zip(new, results, strict=True)]

    # Statistics stay where they are kept, except in the steps that refresh.
    seen = [{n: v for n, v in row.items() if n != "statistics"} for row in rows]
    new = spread(step, seen, mesh_axis)
    averaged(rows, new, numbers)
    refresh_bases(rows, new, phase, ("mu", "nu"), not kl, mesh_axis)
    return new


@transformation
def soap(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    shampoo_beta: ScalarOrSchedule | None = None,
    precondition_frequency: int = 10,
    max_dim: int = 10_000,
    sides: Which = "both",
    statistics: Statistics = "shampoo",
    bias_correction: bool = True,
    staggered: bool = True,
    hidden: Mask = None,
    axes: Axes = None,
    merge_axes: bool = True,
    mesh_axis: str | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """SOAP for the hidden matrices, AdamW for everything else.

        p <- (p - learning_rate u) (1 - learning_rate weight_decay)

    ``u`` is Adam's update in the eigenbasis of Shampoo's statistics. The first step
    only sets up the bases, and moves no hidden matrix.

    Args:
      learning_rate: Step size of the hidden matrices, >= 0; 3e-3 in the paper.
      b1, b2, eps: See `scale_by_soap`.
      weight_decay: Decoupled decay of the hidden matrices, >= 0, multiplied by the
        learning rate.
      weight_decay_mask: The hidden matrices to decay; see `jopt.Mask`.
      mu_dtype: Storage dtype of the first moments; None means float32 or wider.
      nu_dtype, precond_dtype, shampoo_beta: See `scale_by_soap`.
      precondition_frequency: See `scale_by_soap`.
      max_dim, sides, statistics, bias_correction: See `scale_by_soap`.
      staggered: See `scale_by_soap`.
      hidden: The leaves for SOAP; see `jopt.Mask`. None selects by shape and name:
        leaves of two or more axes whose path names no embedding, head, bias or norm.
        True selects all leaves, as in the authors' code.
      axes, merge_axes, mesh_axis: See `scale_by_soap`.
      adam_learning_rate: Step size of the other leaves; None means ``learning_rate``.
      adam_b1: ``b1`` of `adamw`, for the leaves that are not hidden matrices.
      adam_b2: ``b2`` of `adamw`.
      adam_eps: ``eps`` of `adamw`.
      adam_weight_decay: Decoupled decay of the other leaves, >= 0.

    Returns:
      A `partition` into ``"soap"`` and ``"adam"``, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a hidden leaf
        of three or more axes is a matrix.

    Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", 2024. Equal to
    their code with ``hidden=True, staggered=False, merge_axes=False``.

    >>> import jopt
    >>> tx = jopt.soap(3e-3)
    >>> params = {name: jnp.ones((4, 4)) for name in ("embed", "hidden", "head")}
    >>> mu = tx.init(params)["soap"]["scale_by_soap"].mu
    >>> [name for name, slot in mu.items() if slot is not None]
    ['hidden']
    """
    rotated_adam = scale_by_soap(
        b1,
        b2,
        eps,
        mu_dtype,
        nu_dtype=nu_dtype,
        precond_dtype=precond_dtype,
        shampoo_beta=shampoo_beta,
        precondition_frequency=precondition_frequency,
        max_dim=max_dim,
        sides=sides,
        statistics=statistics,
        bias_correction=bias_correction,
        staggered=staggered,
        axes=axes,
        merge_axes=merge_axes,
        mesh_axis=mesh_axis,
    )
    return for_hidden(
        "soap",
        chain(
            rotated_adam,
            step_then_decay(learning_rate, weight_decay, weight_decay_mask, skip=1),
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


@transformation
def kl_soap(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.98,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    shampoo_beta: ScalarOrSchedule | None = None,
    precondition_frequency: int = 10,
    max_dim: int = 10_000,
    sides: Which = "both",
    staggered: bool = True,
    hidden: Mask = None,
    axes: Axes = None,
    merge_axes: bool = True,
    mesh_axis: str | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """KL-SOAP for the hidden matrices, AdamW for everything else.

    SOAP with statistics that minimize the Kullback-Leibler divergence between the
    gradients' covariance and its Kronecker product: those of each side are taken after
    whitening the other. The moments are not corrected for their start at zero.

    Args:
      learning_rate: Step size of the hidden matrices, >= 0; as for AdamW.
      b1, b2, eps: See `scale_by_soap`.
      weight_decay, weight_decay_mask, mu_dtype: See `soap`.
      nu_dtype, precond_dtype, shampoo_beta: See `scale_by_soap`.
      precondition_frequency: See `scale_by_soap`.
      max_dim, sides, staggered: See `scale_by_soap`.
      hidden: The leaves for KL-SOAP; see `soap`.
      axes, merge_axes, mesh_axis: See `scale_by_soap`.
      adam_learning_rate, adam_b1, adam_b2, adam_eps, adam_weight_decay: See `soap`.

    Returns:
      A `partition` into ``"soap"`` and ``"adam"``, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a hidden leaf
        of three or more axes is a matrix.

    Lin et al., "Understanding and improving the Shampoo optimizer via Kullback-Leibler
    minimization", 2025. Equal to their code with ``hidden=True, staggered=False,
    merge_axes=False``, which computes in bfloat16 by default.

    >>> import jopt
    >>> tx = jopt.kl_soap(1e-3)
    >>> state = tx.init({"hidden": jnp.ones((4, 2))})["soap"]["scale_by_soap"]
    >>> [x["hidden"].shape for x in state.eigenvalues]
    [(1, 4), (1, 2)]
    """
    return soap(
        learning_rate,
        b1,
        b2,
        eps,
        weight_decay,
        weight_decay_mask,
        mu_dtype,
        nu_dtype=nu_dtype,
        precond_dtype=precond_dtype,
        shampoo_beta=shampoo_beta,
        precondition_frequency=precondition_frequency,
        max_dim=max_dim,
        sides=sides,
        statistics="kl",
        bias_correction=False,
        staggered=staggered,
        hidden=hidden,
        axes=axes,
        merge_axes=merge_axes,
        mesh_axis=mesh_axis,
        adam_learning_rate=adam_learning_rate,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_eps=adam_eps,
        adam_weight_decay=adam_weight_decay,
    )
