"""``optax.second_order``: `jopt.hvp` and diagonals, as functions of flat vectors.

optax has deprecated them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from jopt.gradients import second_order
from jopt.interop.optax.deprecated import deprecated


__all__ = ["fisher_diag", "hessian_diag", "hvp"]


@deprecated("jopt.hvp or jax.jvp")
def hvp(
    loss: Callable[..., Any], v: jax.Array, params: Any, inputs: Any, targets: Any
) -> Any:
    """Return the product of the Hessian of a loss with ``v``.

    Args:
      loss: A function that returns one number.
      v: A flat vector of as many elements as ``params``.
      params, inputs, targets: The arguments of ``loss``.

    Returns:
      A tree like ``params``.
    """
    _, unravel = ravel_pytree(params)
    return second_order.hvp(loss, params, unravel(v), inputs, targets)


@deprecated("jopt.hessian_diag or jax.hessian")
def hessian_diag(
    loss: Callable[..., Any], params: Any, inputs: Any, targets: Any
) -> jax.Array:
    """Return the diagonal of the Hessian of a loss, as a flat vector.

    Args:
      loss, params, inputs, targets: See `hvp`.
    """
    diagonal = second_order.hessian_diag(loss, params, inputs, targets)
    return ravel_pytree(diagonal)[0]


@deprecated("jopt.fisher_diag")
def fisher_diag(
    negative_log_likelihood: Callable[..., Any], params: Any, inputs: Any, targets: Any
) -> jax.Array:
    """Return the squared gradient of a negative log likelihood, as a flat vector.

    Args:
      negative_log_likelihood: A function that returns one number.
      params, inputs, targets: Its arguments.
    """
    square = second_order.fisher_diag(negative_log_likelihood, params, inputs, targets)
    return ravel_pytree(square)[0]
