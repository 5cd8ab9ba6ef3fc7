"""Muon^2: Adam's direction, orthogonalized.

    m <- beta m + (1 - beta) g
    v <- b2 v + (1 - b2) g^2
    O <- P Q^T   of   (beta m + (1 - beta) g) / (sqrt(v) + eps) = P S Q^T

"Muon^2: boosting Muon via adaptive second-moment preconditioning", 2026; the NanoGPT
speedruns (track 3, 2026). The iteration starts from a matrix whose singular values are
closer together, and needs fewer steps for the same accuracy.

State: 8 bytes per float32 parameter. Learning rate 0.1, weight decay 0.0125 and the
rest as for Muon in the speedruns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jopt.algorithms.adam import adamw
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.matrices import Axes, ShapeScale
from jopt.algorithms.muon import scale_by_polar
from jopt.algorithms.polar import CoefficientsName
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree.norms import abs_sq
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByMuonSquaredState(NamedTuple):
    """State of `scale_by_muon_squared`."""

    mu: Any  # momentum, like params
    nu: Any  # second moment of the gradients, like params


@transformation
def scale_by_muon_squared(
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-10,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """What Muon^2 orthogonalizes: ``(beta m + (1 - beta) g) / (sqrt(v) + eps)``.

    Neither moment is corrected for its bias, of which `scale_by_polar` sees nothing.

    Args:
      beta: Decay of the momentum, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      eps: Added to its root, > 0.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      nu_dtype: Storage dtype of ``nu``; None means float32 or wider.
      nesterov: Whether to use Nesterov's look-ahead momentum.

    Returns:
      A transformation. A complex number counts by its magnitude.

    Raises:
      ValueError: A number is out of range.

    >>> import jopt
    >>> tx, g = jopt.scale_by_muon_squared(0.5, 0.75), jnp.array([2.0, -4.0])
    >>> tx.update(g, tx.init(g))[0]
    Array([ 1.5, -1.5], dtype=float32)
    """
    arguments.decay_rate(beta=beta, b2=b2)
    arguments.positive(eps=eps)

    def rule(g, mu, nu):
        mu = beta * mu + (1 - beta) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        u = beta * mu + (1 - beta) * g if nesterov else mu
        return u / (jnp.sqrt(nu) + eps), mu, nu

    return leafwise(
        rule,
        state=ScaleByMuonSquaredState,
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def muon_squared(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-10,
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
    """Muon^2: Adam's direction, orthogonalized.

        p <- p - learning_rate (s O + weight_decay p)

    Args:
      learning_rate: Step size of the hidden matrices, >= 0.
      ns_coeffs, ns_steps: See `scale_by_muon`.
      beta, b2, eps: See `scale_by_muon_squared`.
      weight_decay, weight_decay_mask, mu_dtype: See `muon`.
      nesterov: See `scale_by_muon`.
      adam_b1, adam_b2, adam_weight_decay, adam_learning_rate, hidden: See `muon`.
      consistent_rms, axes, shape_scale, ns_dtype, mesh_axis: See `scale_by_muon`.

    Returns:
      A `partition` into ``"muon"`` and ``"adam"``, which needs params. A complex number
      counts by its magnitude.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    >>> import jopt
    >>> tx, params = jopt.muon_squared(0.1), {"hidden": jnp.ones((4, 4))}
    >>> list(tx.init(params)["muon"])
    ['scale_by_muon_squared', 'scale_by_learning_rate']
    """
    for_matrices = chain(
        scale_by_muon_squared(beta, b2, eps, mu_dtype, nesterov=nesterov),
        scale_by_polar(
            ns_coeffs,
            ns_steps,
            axes=axes,
            shape_scale=shape_scale,
            consistent_rms=consistent_rms,
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
    return for_hidden("muon", for_matrices, for_others, hidden)
