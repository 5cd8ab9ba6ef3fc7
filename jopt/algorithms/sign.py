"""Gradient descent on signs: every element moves by the learning rate.

    p <- p - learning_rate sign(g)              `sign_sgd`
    m <- beta m + (1 - beta) g
    p <- p - learning_rate sign(m)              `signum`

Bernstein, Wang, Azizzadenesheli & Anandkumar, "signSGD: compressed optimisation for
non-convex problems", 2018. State: none; with momentum 4 bytes per float32 parameter, 2
with ``accumulator_dtype="bfloat16"``. Use a third of Adam's learning rate up to all of
it, with a schedule that ends near zero: the steps do not shrink by themselves.
"""

from __future__ import annotations

from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.transformation import GradientTransformation
from jopt.transforms.gradients import scale_by_sign
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import ema
from jopt.values.numbers import ScalarOrSchedule


@transformation
def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """signSGD: ``p <- p - learning_rate sign(g)``, where ``sign(0) = 0``.

    It keeps no state. The steps do not shrink by themselves, so use a schedule that
    ends near zero.

    Args:
      learning_rate: Step of every element, >= 0.

    Returns:
      A transformation. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    Raises:
      ValueError: ``learning_rate`` is negative.

    Bernstein, Wang, Azizzadenesheli & Anandkumar, "signSGD: compressed optimisation for
    non-convex problems", 2018. Equal to optax.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.sign_sgd(0.5)
    >>> tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))[0]
    Array([-0.5,  0.5], dtype=float32)
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@transformation
def signum(
    learning_rate: ScalarOrSchedule,
    beta: ScalarOrSchedule = 0.9,
    accumulator_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Signum: ``p <- p - learning_rate sign(m)`` with ``m`` the average of gradients.

    The steps do not shrink by themselves, so use a schedule that ends near zero.

    Args:
      learning_rate: Step of every element, >= 0; Adam's, or down to a third of it.
      beta: Decay of the average, in [0, 1). A tunable or scheduled one is called
        ``decay`` in the state, as in `ema`.
      accumulator_dtype: Storage dtype of the average; None means float32 or wider.

    Returns:
      A transformation. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    Raises:
      ValueError: A number is out of range.

    Bernstein, Wang, Azizzadenesheli & Anandkumar, "signSGD: compressed optimisation for
    non-convex problems", 2018. Equal to optax.

    >>> import jopt
    >>> list(jopt.signum(1e-4).init(1.0))
    ['ema', 'scale_by_learning_rate']
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )
