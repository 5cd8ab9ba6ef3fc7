"""Gradient descent on signs: every element moves by the learning rate.

    p <- p - learning_rate sign(g)              `sign_sgd`
    m <- beta m + (1 - beta) g
    p <- p - learning_rate sign(m)              `signum`

Bernstein, Wang, Azizzadenesheli & Anandkumar, "signSGD: compressed optimisation for
non-convex problems", 2018. State: none; 4 bytes per float32 parameter for the momentum,
2 with ``accumulator_dtype="bfloat16"``. Take the learning rate of Adam or a third of
it, with a schedule that ends near zero: the steps do not get smaller by themselves.
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

    Args:
      learning_rate: By how much every element moves, >= 0.

    Returns:
      A transformation.

    Raises:
      ValueError: The learning rate is negative.

    Bernstein, Wang, Azizzadenesheli & Anandkumar, "signSGD: compressed optimisation for
    non-convex problems", 2018. As optax.

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

    Args:
      learning_rate: By how much every element moves, >= 0.
      beta: The decay of the average, in [0, 1). In the state a tunable or scheduled one
        has the name ``decay``, by which `ema` knows it.
      accumulator_dtype: What the average is stored in; None is float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    Bernstein, Wang, Azizzadenesheli & Anandkumar, "signSGD: compressed optimisation for
    non-convex problems", 2018. As optax.

    >>> import jopt
    >>> list(jopt.signum(1e-4).init(1.0))
    ['ema', 'scale_by_learning_rate']
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )
