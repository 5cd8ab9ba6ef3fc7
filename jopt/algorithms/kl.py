"""KL-Shampoo: whitening by Kronecker factors that whiten each other.

    m <- b1 m + (1 - b1) G
    u <- Q_L (Q_L^T m Q_R / sqrt(e_L e_R^T)) Q_R^T
    L <- beta L + (1 - beta) / n G R^-1 G^T,   R <- beta R + (1 - beta) / m G^T L^-1 G

with L^-1 = Q_L diag(1 / e_L) Q_L^T: eigenvectors are refreshed every few steps, by one
step of orthogonal iteration, and eigenvalues in every step, from the diagonal in the
current basis.

Lin et al., "Understanding and improving the Shampoo optimizer via Kullback-Leibler
minimization", 2025. The Kronecker product that is nearest to the gradients' covariance
in the Kullback-Leibler divergence has such factors. It needs no grafting and no second
moment, which Shampoo and SOAP do. Settings: those of AdamW, with a learning rate that
is tuned anew. `kl_soap` has the same statistics, and Adam in their basis.

State: ``4 + 8 (m^2 + n^2) / (m n)`` bytes per float32 parameter of an (m, n) matrix, 20
if it is square.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax import lax

from jopt.algorithms.adam import adamw
from jopt.algorithms.eigenbases import averaged, refresh_bases, updated_kl
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.kronecker import Sides, Which, facing, rotated
from jopt.algorithms.matrices import Axes, check_range
from jopt.algorithms.matrixwise import Method, PerSide, Row, matrixwise
from jopt.algorithms.stacks import split, spread, stacked
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.weight_decay import step_then_decay
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByKlShampooState(NamedTuple):
    """State of `scale_by_kl_shampoo`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    statistics: Any  # for each side, (matrices, d, d); None for other leaves
    bases: Any  # for each side, eigenvectors as columns, like the statistics
    eigenvalues: Any  # for each side, (matrices, d)


@transformation
def scale_by_kl_shampoo(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.98,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: StorageDtype | None = None,
    *,
    precond_dtype: PlainDtype | None = None,
    precondition_frequency: int = 10,
    max_dim: int = 10_000,
    sides: Which = "both",
    staggered: bool = True,
    axes: Axes = None,
    merge_axes: bool = True,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Whiten the momentum of matrices by KL-Shampoo's Kronecker factors.

    Leaves with fewer than two axes get their momentum. The first update is zero.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the statistics and the eigenvalues, in [0, 1).
      eps: Damping, >= 0: the factor s of a direction becomes ``s / (1 + eps s)``.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      precond_dtype, precondition_frequency, max_dim, sides: See `scale_by_soap`.
      staggered, axes, merge_axes, mesh_axis: See `scale_by_soap`.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a leaf of three
        or more axes is a matrix.

    Lin et al., "Understanding and improving the Shampoo optimizer via Kullback-Leibler
    minimization", 2025. Equal to their code for matrices with ``staggered=False``,
    which computes in bfloat16 by default; for tensors of three axes that code updates
    the sides one after the other.

    >>> import jopt, jax.numpy as jnp
    >>> tx, g = jopt.scale_by_kl_shampoo(), jnp.ones((4, 2))
    >>> [x.shape for x in tx.init(g).eigenvalues]
    [(1, 4), (1, 2)]
    """
    arguments.decay_rate(b1=b1, b2=b2)
    check_range(precond_dtype)
    arguments.nonnegative(eps=eps)
    arguments.at_least(1, precondition_frequency=precondition_frequency)
    arguments.at_least(1, max_dim=max_dim)
    arguments.one_of(("both", "smaller"), sides=sides)

    def numbers(count):
        # `1 - b1` is formed here, while b1 may still be a Python double.
        return {
            **{"b1": b1, "b1_rest": 1 - b1},
            **{"beta": b2, "beta_rest": 1 - b2, "eps": eps},
            "started": (count > 0).astype(float),
        }

    method = Method(
        "scale_by_kl_shampoo",
        _kl_shampoo,
        ScaleByKlShampooState,
        {
            "mu": zeros(mu_dtype),
            "statistics": PerSide(0.0, dtype=precond_dtype),
            "bases": PerSide(None, dtype=precond_dtype),
            "eigenvalues": PerSide(0.1, square=False),
        },
        axes,
        max_dim,
        sides,
        merge_axes,
        every=precondition_frequency,
        staggered=staggered,
        mesh_axis=mesh_axis,
    )
    return matrixwise(method, numbers)


def _kl_shampoo(
    rows: list[Row],
    phase: jax.Array,
    numbers: dict[str, jax.Array],
    sides: Sides,
    mesh_axis: str | None,
) -> list[Row]:
    del sides
    x, started = numbers, numbers["started"]
    mus = [x["b1"] * row["mu"] + x["b1_rest"] * (started * row["g"]) for row in rows]

    def step(rows):
        bases = stacked([row["bases"] for row in rows])
        eigenvalues = stacked([row["eigenvalues"] for row in rows])
        g = stacked([row["g"] for row in rows])
        mu = rotated(stacked([row["mu"] for row in rows]), bases)
        scale = 1.0
        for side, e in enumerate(eigenvalues):
            if e is not None:
                scale = scale * facing(lax.rsqrt(e), side, mu)
        u = rotated(mu * (scale / (1 + x["eps"] * scale)), bases, back=True)
        new = [{} for _ in rows]
        grams = updated_kl(rows, new, g, bases, started, numbers)
        results = split({"u": u, "grams": tuple(grams)}, len(rows))
        return [{**row, **part} for row, part in zip(new, results, strict=True)]

    seen = [
        {n: mu if n == "mu" else v for n, v in row.items() if n != "statistics"}
        for row, mu in zip(rows, mus, strict=True)
    ]
    new = spread(step, seen, mesh_axis)
    for row, mu in zip(new, mus, strict=True):
        row["mu"] = mu
    averaged(rows, new, numbers)
    refresh_bases(rows, new, phase, (), False, mesh_axis)
    return new


@transformation
def kl_shampoo(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.98,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    precond_dtype: PlainDtype | None = None,
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
    """KL-Shampoo for the hidden matrices, AdamW for everything else.

        p <- (p - learning_rate u) (1 - learning_rate weight_decay)

    ``u`` is the momentum, whitened by Kronecker factors. The first step only sets up
    the bases, and moves no hidden matrix.

    Args:
      learning_rate: Step size of the hidden matrices, >= 0; 1e-4 to 3e-3.
      b1, b2, eps: See `scale_by_kl_shampoo`.
      weight_decay, weight_decay_mask, mu_dtype: See `soap`.
      precond_dtype, precondition_frequency, max_dim: See `scale_by_soap`.
      sides, staggered: See `scale_by_soap`.
      hidden: The leaves for KL-Shampoo; see `soap`.
      axes, merge_axes, mesh_axis: See `scale_by_soap`.
      adam_learning_rate, adam_b1, adam_b2, adam_eps, adam_weight_decay: See `soap`.

    Returns:
      A `partition` into ``"shampoo"`` and ``"adam"``, for real numbers; it needs
      params.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a hidden leaf
        of three or more axes is a matrix.

    Lin et al., "Understanding and improving the Shampoo optimizer via Kullback-Leibler
    minimization", 2025. Equal to their code, see `scale_by_kl_shampoo`.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.kl_shampoo(1e-3)
    >>> state = tx.init({"hidden": jnp.ones((4, 2)), "bias": jnp.ones(2)})
    >>> list(state["shampoo"]), list(state["adam"])[:1]
    (['scale_by_kl_shampoo', 'step_then_decay'], ['scale_by_adam'])
    """
    whitening = scale_by_kl_shampoo(
        b1,
        b2,
        eps,
        mu_dtype,
        precond_dtype=precond_dtype,
        precondition_frequency=precondition_frequency,
        max_dim=max_dim,
        sides=sides,
        staggered=staggered,
        axes=axes,
        merge_axes=merge_axes,
        mesh_axis=mesh_axis,
    )
    return for_hidden(
        "shampoo",
        chain(
            whitening,
            step_then_decay(learning_rate, weight_decay, weight_decay_mask, skip=1),
        ),
        adamw(
            learning_rate if adam_learning_rate is None else adam_learning_rate,
            adam_b1,
            adam_b2,
            adam_eps,
            mu_dtype=mu_dtype,
            weight_decay=adam_weight_decay,
        ),
        hidden,
    )
