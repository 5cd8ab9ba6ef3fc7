"""AdaMuon: Muon with a second moment of each element.

    m <- beta m + (1 - beta) g
    O <- P Q^T   of   sign(m) = P S Q^T       with nesterov, of beta m + (1 - beta) g
    v <- beta v + (1 - beta) O^2
    u <- O / (sqrt(v) + eps),   scaled to the root mean square 0.2
    p <- p - learning_rate (u + weight_decay p)

Si, Zhang & Shen, "AdaMuon: adaptive Muon optimizer", 2025. The signs make O independent
of the gradient's scale in each element, so that the second moment sees directions only.

State: 8 bytes per float32 parameter, as AdamW. Learning rate and weight decay are those
of AdamW.
"""

from __future__ import annotations

from typing import Any

from jopt.algorithms.adam import adamw
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.matrices import Axes
from jopt.algorithms.muon import scale_by_polar
from jopt.algorithms.norm_control import match_rms
from jopt.algorithms.polar import CoefficientsName
from jopt.algorithms.rmsprop import scale_by_rms
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.gradients import identity, scale_by_sign
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import trace
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values.numbers import ScalarOrSchedule


@transformation
def adamuon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    sign: bool = True,
    rms: ScalarOrSchedule = 0.2,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """AdaMuon: Muon with a second moment of each element.

        p <- p - learning_rate (matched(O / (sqrt(v) + eps)) + weight_decay p)

    Args:
      learning_rate: Step size of all leaves, >= 0; about that of AdamW.
      ns_coeffs, ns_steps, beta: See `scale_by_muon`.
      b2: Decay of the second moment of O, in [0, 1).
      eps: Added to its root, > 0.
      weight_decay, weight_decay_mask: See `muon`.
      mu_dtype: Storage dtype of the momentum and of AdamW's first moment; None means
        float32 or wider.
      nesterov: See `scale_by_muon`.
      sign: Whether to orthogonalize the signs of the momentum, as the paper does.
      rms: See `match_rms`.
      adam_b1, adam_b2, adam_weight_decay: See `muon`.
      adam_learning_rate: Step size of the leaves that are not hidden matrices; None
        means ``learning_rate``.
      hidden: See `muon`.
      axes, ns_dtype, mesh_axis: See `scale_by_muon`.

    Returns:
      A `partition` into ``"muon"`` and ``"adam"``, which needs params. A complex number
      counts by its magnitude.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Si, Zhang & Shen, "AdaMuon: adaptive Muon optimizer", 2025.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.adamuon(1e-3), {"hidden": jnp.eye(4)}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> 1e3 * jnp.sqrt(jnp.mean(updates["hidden"] ** 2))
    Array(0.2, dtype=float32)
    """
    for_matrices = chain(
        # Muon's momentum times a number, which the iteration does not see.
        trace(beta, nesterov=nesterov, accumulator_dtype=mu_dtype),
        scale_by_sign() if sign else identity(),
        scale_by_polar(
            ns_coeffs, ns_steps, axes=axes, ns_dtype=ns_dtype, mesh_axis=mesh_axis
        ),
        scale_by_rms(b2, eps, eps_in_sqrt=False),
        match_rms(rms, axes=axes),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    for_others = adamw(
        rate, adam_b1, adam_b2, mu_dtype=mu_dtype, weight_decay=adam_weight_decay
    )
    return for_hidden("muon", for_matrices, for_others, hidden)
