"""Grams: the size of Adam's update, the sign of the gradient.

    m, v as in Adam
    u <- |m^ / (sqrt(v^) + eps)| sign(g)

Cao, Li & Song, "Grams: gradient descent with adaptive momentum scaling", 2024. State: 8
bytes per float32 parameter, the same as Adam's. Hyperparameters as for Adam.
"""

from __future__ import annotations

from jopt.algorithms.adam import scale_by_adam
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.transforms.agreement import gradient_sign
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values.numbers import ScalarOrSchedule


@transformation
def grams(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Grams: AdamW whose updates have the sign of the gradient.

        p <- p - learning_rate (|m^ / (sqrt(v^) + eps)| sign(g) + weight_decay p)

    Args:
      learning_rate: The step size, >= 0; 1e-3 is typical.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation; it needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Cao, Li & Song, "Grams: gradient descent with adaptive momentum scaling", 2024.
    Matches pytorch_optimizer's ``Grams``, whose default eps is 1e-6.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.grams(0.1), jnp.zeros(1)
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(params), params)
    >>> tx.update(jnp.array([-0.1]), state, params)[0] > 0  # adam(0.1) goes on down
    Array([ True], dtype=bool)
    """
    adam = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype)
    # Weight decay comes after the sign, so the gradient cannot turn it around.
    return chain(
        gradient_sign(adam),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
