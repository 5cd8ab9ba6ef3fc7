"""SPlus: the sign of the momentum in the eigenbasis of Shampoo's statistics.

    m <- b1 m + (1 - b1) G
    u <- 2 / (m + n) Q_L sign(Q_L^T m Q_R) Q_R^T     for an (m, n) matrix
    u <- 0.001 sign(m)                               for any other leaf
    L <- b2 L + (1 - b2) G G^T,   R <- b2 R + (1 - b2) G^T G

The eigenvectors are computed after the first step and then every hundred: a sign has
the same size in a basis of yesterday. The parameters to evaluate with are an average.

Frans et al., "A stable whitening optimizer for efficient neural network training",
2025. A learning rate of 0.1 to 0.2 suits models of all widths.

State: ``8 + 8 (m^2 + n^2) / (m n)`` bytes per float32 parameter of an (m, n) matrix, 8
of other leaves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.eigenbases import averaged, decompose
from jopt.algorithms.kronecker import Sides, gram, rotated
from jopt.algorithms.matrices import Axes, check_range, is_hidden
from jopt.algorithms.matrixwise import Method, PerSide, Row, matrixwise
from jopt.algorithms.stacks import split, spread, stacked
from jopt.core import masks
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.widening import widened
from jopt.transforms.weight_decay import step_then_decay
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.averaging import params_ema


class ScaleBySplusState(NamedTuple):
    """State of `scale_by_splus`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    statistics: Any  # for each side, (matrices, d, d); None for other leaves
    bases: Any  # for each side, eigenvectors as columns, like the statistics


@transformation
def scale_by_splus(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    mu_dtype: StorageDtype | None = None,
    *,
    precond_dtype: PlainDtype | None = None,
    nonstandard_constant: float = 0.001,
    precondition_frequency: int = 100,
    max_dim: int = 10_000,
    staggered: bool = True,
    hidden: Mask = None,
    axes: Axes = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Take the sign of the momentum in the eigenbasis of Shampoo's statistics.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the statistics, in [0, 1).
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      precond_dtype: See `scale_by_soap`.
      nonstandard_constant: Factor of the sign for leaves that are not hidden matrices,
        and those with a side longer than ``max_dim``.
      precondition_frequency: Steps from one decomposition to the next, >= 1.
      max_dim: Longer sides are not rotated, >= 1.
      staggered: Whether stacks of matrices take turns, see `scale_by_soap`.
      hidden: The leaves to rotate; see `soap`.
      axes, mesh_axis: See `scale_by_soap`.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a hidden leaf
        of three or more axes is a matrix.

    Frans et al., "A stable whitening optimizer for efficient neural network training",
    2025.

    >>> import jopt
    >>> tx, g = jopt.scale_by_splus(), {"b": jnp.ones(2), "w": jnp.ones((2, 2))}
    >>> tx.update(g, tx.init(g))[0]["w"]
    Array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    check_range(precond_dtype)
    arguments.finite(nonstandard_constant=nonstandard_constant)
    arguments.at_least(1, precondition_frequency=precondition_frequency)
    arguments.at_least(1, max_dim=max_dim)

    def numbers(_):
        # `1 - b1` is formed here, while b1 may still be a Python double.
        return {"b1": b1, "b1_rest": 1 - b1, "beta": b2, "beta_rest": 1 - b2}

    method = _method(
        hidden=hidden,
        axes=axes,
        max_dim=max_dim,
        mu_dtype=mu_dtype,
        precond_dtype=precond_dtype,
        every=precondition_frequency,
        staggered=staggered,
        mesh_axis=mesh_axis,
    )
    return matrixwise(method, numbers, max_dim=max_dim, constant=nonstandard_constant)


def _method(
    *, hidden: Mask, mu_dtype: Any = None, precond_dtype: Any = None, **options: Any
) -> Method:
    """Return the method, which also knows the sides of each leaf."""
    return Method(
        "scale_by_splus",
        _splus,
        ScaleBySplusState,
        {
            "mu": zeros(mu_dtype),
            "statistics": PerSide(0.0, dtype=precond_dtype),
            "bases": PerSide(None, dtype=precond_dtype),
        },
        shift=1,
        hidden=is_hidden if hidden is None else hidden,
        **options,
    )


def _scale(sides: Sides, max_dim: int, constant: float) -> float:
    """Return the scale of a leaf's update."""
    _, *lengths = sides.dims
    is_standard = sides.is_matrix and max(lengths) <= max_dim and min(lengths) > 0
    return 2 / sum(lengths) if is_standard else constant


def _splus(
    rows: list[Row],
    phase: jax.Array,
    numbers: dict[str, jax.Array],
    sides: Sides,
    mesh_axis: str | None,
    *,
    max_dim: int,
    constant: float,
) -> list[Row]:
    x = numbers
    mus = [x["b1"] * row["mu"] + x["b1_rest"] * row["g"] for row in rows]

    def step(rows):
        bases = stacked([row["bases"] for row in rows])
        mu = stacked([row["mu"] for row in rows])
        u = rotated(jnp.sign(rotated(mu, bases)), bases, back=True)
        u = u * _scale(sides, max_dim, constant)
        g = stacked([row["g"] for row in rows])
        grams = tuple(gram(g, i) if kept else None for i, kept in enumerate(sides.kept))
        return split({"u": u, "grams": grams}, len(rows))

    seen = [
        {"g": row["g"], "mu": mu, "bases": row["bases"]}
        for row, mu in zip(rows, mus, strict=True)
    ]
    new = spread(step, seen, mesh_axis)
    for row, mu in zip(new, mus, strict=True):
        row["mu"] = mu
    averaged(rows, new, numbers)
    decompose(rows, new, phase, mesh_axis)
    return new


@transformation
def splus(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    weight_decay: ScalarOrSchedule = 0.01,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    ema_decay: ScalarOrSchedule = 0.999,
    precond_dtype: PlainDtype | None = None,
    nonstandard_constant: float = 0.001,
    precondition_frequency: int = 100,
    max_dim: int = 10_000,
    staggered: bool = True,
    hidden: Mask = None,
    axes: Axes = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """SPlus: sign descent in the eigenbasis of Shampoo's statistics.

        p <- (p - learning_rate u) (1 - learning_rate s weight_decay)

    with the scale s of the update, ``2 / (m + n)`` for a matrix. `jopt.eval_params`
    returns the average to evaluate with.

    Args:
      learning_rate: Step size, >= 0; 0.1 to 0.2.
      b1, b2: See `scale_by_splus`.
      weight_decay: Decay coefficient, >= 0.
      weight_decay_mask: The leaves to decay; see `jopt.Mask`.
      mu_dtype, precond_dtype: See `scale_by_splus`.
      ema_decay: Decay of the average of the parameters, in [0, 1).
      nonstandard_constant, precondition_frequency: See `scale_by_splus`.
      max_dim, staggered, hidden: See `scale_by_splus`.
      axes, mesh_axis: See `scale_by_soap`.

    Returns:
      A transformation, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range, or ``axes`` does not say how a hidden leaf
        of three or more axes is a matrix.

    Frans et al., "A stable whitening optimizer for efficient neural network training",
    2025. Equal to their code with ``hidden=True, staggered=False``, which averages the
    parameters before their decay.

    >>> import jopt
    >>> tx, params = jopt.splus(0.1), {"w": jnp.ones((2, 2))}
    >>> state = tx.init(params)
    >>> updates, state = tx.update(params, state, params)
    """
    signs = scale_by_splus(
        b1,
        b2,
        mu_dtype,
        precond_dtype=precond_dtype,
        nonstandard_constant=nonstandard_constant,
        precondition_frequency=precondition_frequency,
        max_dim=max_dim,
        staggered=staggered,
        hidden=hidden,
        axes=axes,
        mesh_axis=mesh_axis,
    )

    method = _method(hidden=hidden, axes=axes, max_dim=max_dim)

    def multiples(params):
        # The decay has the scale of the update.
        leaves = Leaves(params, "params")
        chosen = masks.multiples(weight_decay_mask, params)
        scales = [
            None
            if s is None
            else (on or 0.0) * _scale(s, max_dim, nonstandard_constant)
            for on, s in zip(chosen, method.sides(leaves), strict=True)
        ]
        return leaves.tree(scales)

    return chain(
        widened(chain(signs, step_then_decay(learning_rate, weight_decay, multiples))),
        params_ema(ema_decay, debias=True),
    )
