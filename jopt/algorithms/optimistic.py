"""Optimistic gradient descent: step as if the gradient changed on as it just did.

    u <- alpha g + beta (g - g_before)

Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018; Mokhtari,
Ozdaglar & Pattathil, "A unified analysis of extra-gradient and optimistic gradient
methods for saddle point problems", 2020 (alpha and beta).

State: 4 bytes per float32 parameter more than the optimizer it extends. For games, such
as generative adversarial networks, where gradient descent turns in circles.
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

    At the first step the change counts as zero.

    Args:
      alpha: The weight of the gradient, >= 0.
      beta: The weight of its change, >= 0.
      previous_gradient_dtype: What ``previous_gradient`` is stored in.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is negative.

    Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018. As optax,
    which has a flag for the first step in its state where this has a count.

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
    """Optimistic gradient descent.

        p <- p - learning_rate (alpha g + beta (g - g_before))

    Args:
      learning_rate: The step size, >= 0.
      alpha: The weight of the gradient, >= 0.
      beta: The weight of its change, >= 0.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is negative.

    Mokhtari, Ozdaglar & Pattathil, "A unified analysis of extra-gradient and optimistic
    gradient methods for saddle point problems", 2020. As optax.

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

    Args:
      learning_rate: The step size, >= 0.
      alpha: The weight of Adam's update ``u``, >= 0.
      beta: The weight of its change, >= 0.
      b1: See `scale_by_adam`.
      b2: See `scale_by_adam`.
      eps: See `scale_by_adam`.
      eps_root: See `scale_by_adam`.
      mu_dtype: What ``mu`` is stored in.
      nesterov: Whether Adam looks one step ahead; the paper's does not.
      nu_dtype: What ``nu`` is stored in.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018. As optax.

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

    `optimistic_adam_v2` with ``beta = optimism / learning_rate``: prefer that.

    Args:
      learning_rate: The step size, >= 0; a number, > 0, if optimism is given.
      optimism: The weight of the change of Adam's update ``u``, >= 0; None is the
        learning rate. Where the learning rate is changed by hand, it changes alike.
      b1: See `scale_by_adam`.
      b2: See `scale_by_adam`.
      eps: See `scale_by_adam`.
      eps_root: See `scale_by_adam`.
      mu_dtype: What ``mu`` is stored in.
      nesterov: Whether Adam looks one step ahead; the paper's does not.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.
      TypeError: Optimism is given, and the learning rate is not a number.

    Daskalakis, Ilyas, Syrgkanis & Zeng, "Training GANs with optimism", 2018. As optax.

    >>> import jopt
    >>> jopt.optimistic_adam(1e-3, optimism=5e-4)
    optimistic_adam(learning_rate=0.001, optimism=0.0005)
    """
    beta = 1.0
    if optimism is not None:
        if not isinstance(learning_rate, float):
            raise TypeError(
                "optimism is a multiple of the learning rate, which has to be a number "
                f"then, got learning_rate={learning_rate!r}. Use "
                "jopt.optimistic_adam_v2(learning_rate, beta=…)"
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
