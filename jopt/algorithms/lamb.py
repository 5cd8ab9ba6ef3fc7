"""LAMB: Adam with steps in proportion to the norm of each layer's parameters.

    u <- m^ / (sqrt(v^) + eps) + weight_decay p       m^, v^ as in Adam
    p <- p - learning_rate u |p| / |u|

You et al., "Large batch optimization for deep learning: training BERT in 76 minutes",
2020.

State: 8 bytes per float32 parameter. For batches of many thousands: learning rate 1e-3
to 1e-2 with warmup, weight decay 0.01 on matrices. Norms are taken over whole leaves.
"""

from __future__ import annotations

from typing import Literal

from jopt.algorithms.adam import scale_by_adam
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.transforms.gradients import scale_by_trust_ratio, trust_ratio
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.numbers import ScalarOrSchedule


@transformation
def scale_by_decayed_trust_ratio(
    learning_rate: ScalarOrSchedule, weight_decay: ScalarOrSchedule = 0.0
) -> GradientTransformation:
    """Decay each parameter, then step in proportion to the norm of what remains.

        p <- (1 - learning_rate weight_decay) p
        p <- p - learning_rate g |p| / |g|

    This is the last part of Keras's Lamb. The ratio is 1 where ``|p|`` or ``|g|`` is 0.

    Args:
      learning_rate: Step size relative to the norm of the parameter, >= 0.
      weight_decay: Decay rate, >= 0, multiplied by the learning rate.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is negative or not finite.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.scale_by_decayed_trust_ratio(0.5, 1.0), jnp.array([8.0])
    >>> tx.update(jnp.array([0.1]), tx.init(params), params)[0]
    Array([-6.], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)

    def rule(g, *, p):
        decayed = learning_rate * weight_decay * p
        # Adam's updates are bounded, so a plain sum of squares gives their norm.
        ratio = trust_ratio(g, p - decayed, bounded=True)
        return -learning_rate * ratio * g - decayed

    return leafwise(rule, treatment=Treatment(decay=(weight_decay,)))


@transformation
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-6,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    mu_dtype: StorageDtype | None = None,
    nu_dtype: StorageDtype | None = None,
    decay: Literal["in_ratio", "before_step"] = "in_ratio",
) -> GradientTransformation:
    """LAMB: ``p <- p - learning_rate u |p| / |u|`` with the update ``u`` of AdamW.

    Each layer moves by the same fraction of its own norm. This keeps training stable
    with batches of many thousands, at learning rates of 1e-3 to 1e-2 after a warmup.

    Args:
      learning_rate: Step size relative to the norm of each leaf, >= 0.
      b1, b2, eps, eps_root: See `scale_by_adam`.
      weight_decay: Decay rate, >= 0; 0.01 on matrices is usual.
      mask: See `add_decayed_weights`.
      mu_dtype, nu_dtype: See `scale_by_adam`.
      decay: ``"in_ratio"`` adds ``weight_decay p`` to the update before the update is
        rescaled (the paper, optax). ``"before_step"`` first takes
        ``learning_rate weight_decay p`` from the parameter (Keras) and allows no mask;
        for other decays on other leaves, combine several ``lamb`` with `partition`.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or ``mask`` is given with
        ``decay="before_step"``.

    You et al., "Large batch optimization for deep learning: training BERT in 76
    minutes", 2020. Equal to optax; to Keras with ``eps=1e-7, decay="before_step"``.

    >>> import jopt
    >>> jopt.lamb(1e-3, weight_decay=0.01, mask="kernel")
    lamb(learning_rate=0.001, weight_decay=0.01, mask='kernel')
    """
    arguments.one_of(("in_ratio", "before_step"), decay=decay)
    adam = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype)
    if decay == "before_step":
        if mask is not None:
            raise ValueError(
                "decay='before_step' takes no mask, got "
                f"mask={abbreviated(mask)}. Use jopt.partition, with a second lamb "
                "without weight decay for the leaves that must not decay"
            )
        return chain(adam, scale_by_decayed_trust_ratio(learning_rate, weight_decay))
    return chain(
        adam,
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(bounded=True),
        scale_by_learning_rate(learning_rate),
    )
