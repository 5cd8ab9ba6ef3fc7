"""Optimistic gradient descent: extrapolate the last change of the gradient.

    u <- alpha g + beta (g - g_before)

Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018; Mokhtari,
Ozdaglar & Pattathil, "A unified analysis of extra-gradient and optimistic gradient
methods for saddle point problems", 2020 (alpha and beta).

State: 4 bytes per float32 parameter more than the optimizer it extends. For games, such
as generative adversarial networks, where gradient descent cycles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.adam import scale_by_adam
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


class ScaleByOptimisticGradientState(NamedTuple):
    """State of `scale_by_optimistic_gradient`."""

    count: jax.Array  # int32 scalar, updates so far
    previous_gradient: Any  # the incoming update of the last step, like params


@transformation
def scale_by_optimistic_gradient(
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    *,
    previous_gradient_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Add the change of the gradient: ``u <- alpha g + beta (g - g_before)``.

    The change counts as zero at the first step.

    Args:
      alpha: Weight of the gradient, >= 0.
      beta: Weight of its change, >= 0.
      previous_gradient_dtype: Storage dtype of ``previous_gradient``; None means
        float32 or wider.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is negative.

    Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018. Equal to
    optax, whose state has a flag for the first step in place of the count.

    >>> import jopt
    >>> tx = jopt.scale_by_optimistic_gradient()
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([3.0]), state)[0]
    Array([5.], dtype=float32)
    """
    arguments.nonnegative(alpha=alpha, beta=beta)

    def scalars(t):
        return {"change": jnp.where(t == 1, jnp.zeros_like(t), beta)}

    def rule(g, before, *, change):
        return alpha * g + change * (g - before), g

    return leafwise(
        rule,
        scalars,
        ScaleByOptimisticGradientState,
        previous_gradient=zeros(previous_gradient_dtype),
    )


@transformation
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
) -> GradientTransformation:
    """Optimistic gradient descent, for games and other saddle point problems.

        p <- p - learning_rate (alpha g + beta (g - g_before))

    It steps as if the gradient changed again as it just did, which damps the cycles
    that gradient descent runs into when players move against each other.

    Args:
      learning_rate: Step size, >= 0.
      alpha, beta: See `scale_by_optimistic_gradient`.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is negative.

    Mokhtari, Ozdaglar & Pattathil, "A unified analysis of extra-gradient and optimistic
    gradient methods for saddle point problems", 2020. Equal to optax.

    >>> import jopt
    >>> jopt.optimistic_gradient_descent(0.1, beta=0.5)
    optimistic_gradient_descent(learning_rate=0.1, beta=0.5)
    """
    return chain(
        scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate)
    )


@transformation
def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    nesterov: bool = True,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Optimistic Adam: ``p <- p - learning_rate (alpha u + beta (u - u_before))``.

    For games such as generative adversarial networks; see
    `optimistic_gradient_descent`.

    Args:
      learning_rate: Step size, >= 0.
      alpha: Weight of Adam's update ``u``, >= 0.
      beta: Weight of its change, >= 0.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      nesterov: Whether to use Adam's look-ahead first moment; the paper does not.
      nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.

    Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018. Equal to
    optax.

    >>> import jopt
    >>> jopt.optimistic_adam_v2(1e-3, nesterov=False)
    optimistic_adam_v2(learning_rate=0.001, nesterov=False)
    """
    return chain(
        scale_by_adam(
            b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype, nesterov=nesterov
        ),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    optimism: float | None = None,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """Optimistic Adam: ``p <- p - learning_rate u - optimism (u - u_before)``.

    Prefer `optimistic_adam_v2`, which this is with ``beta = optimism / learning_rate``.

    Args:
      learning_rate: Step size, >= 0; if ``optimism`` is given, a number > 0.
      optimism: Weight of the change of Adam's update ``u``, >= 0; None means the
        learning rate. It changes in proportion when the learning rate is changed by
        hand.
      b1, b2, eps, eps_root, mu_dtype: See `scale_by_adam`.
      nesterov: See `optimistic_adam_v2`.

    Returns:
      A transformation. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range, or both ``eps`` and ``eps_root`` are zero.
      TypeError: ``optimism`` is given, and ``learning_rate`` is not a number.

    Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018. Equal to
    optax.

    >>> import jopt
    >>> jopt.optimistic_adam(1e-3, optimism=5e-4)
    optimistic_adam(learning_rate=0.001, optimism=0.0005)
    """
    beta = 1.0
    if optimism is not None:
        if not isinstance(learning_rate, float):
            raise TypeError(
                "learning_rate must be a number if optimism is given, got "
                f"learning_rate={text_of(learning_rate)}. Use "
                "jopt.optimistic_adam_v2(learning_rate, beta=…), where beta is "
                "optimism / learning_rate"
            )
        arguments.positive(learning_rate=learning_rate)
        arguments.nonnegative(optimism=optimism)
        beta = optimism / learning_rate
    return optimistic_adam_v2(
        learning_rate,
        beta=beta,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
    )
